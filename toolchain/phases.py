"""What an engine is timed on: one call, or prefill and decode where it keeps a cache."""

from dataclasses import dataclass

from ..deploy.backend import Feed
from ..deploy.ort_session import KEEP
from ..deploy.rules import start_id
from ..deploy.runtime import Session
from .feeds import LAST, SENTENCES
from .feeds.rolling import following, keeps_cache, started

IDS = "input_ids"


@dataclass(frozen=True)
class Phase:
    """A call of one graph: `tokens` are those it takes, or makes where it decodes.

    `shape` is `BATCHxTOKENS` of the texts it is of: as many as the graph takes of those asked for.
    """

    name: str
    graph: str
    feed: Feed
    tokens: int
    shape: str


def phases(session: Session, batch: int, tokens: int) -> tuple[Phase, ...]:
    """The calls of an engine for `batch` texts of `tokens` tokens.

    A decoder's call makes one token a text, with `tokens` (or one, beside an encoder) in its cache.
    """
    given = feed(session, batch, tokens)
    first, *others = session.graphs.items()
    graph, signature = first
    ids = given[next(each.name for each in signature.inputs if each.role == IDS)]
    taken, at = ids.size, "x".join(map(str, ids.shape))
    if others:
        name, decoder = others[0]
        start = start_id(session.assets)
        begun = started(decoder, given, session.run(given, graph), start)
        going = following(decoder, begun, session.run(begun, name))
        return (
            Phase("encode", graph, given, taken, at),
            Phase("decode", name, going, batch, at),
        )
    if not keeps_cache(signature):
        return (Phase("", graph, given, taken, at),)
    going = following(signature, given, session.run(given, graph))
    return (
        Phase("prefill", graph, {**given, KEEP: LAST}, taken, at),
        Phase("decode", graph, going, batch, at),
    )


def feed(session: Session, batch: int, tokens: int) -> Feed:
    """Real words, `tokens` of them in every row, or as many as the graph takes."""
    words = " ".join(SENTENCES) + " "
    long = words * (1 + 8 * tokens // len(words.split()))
    return session.encoder.encode([long] * batch, max_length=tokens)
