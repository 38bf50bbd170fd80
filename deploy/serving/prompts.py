"""From a request for text to what is written: its prompt, by the rules of the model."""

from ... import ConfigError
from ..generate import is_causal
from . import openai as oai
from .model import Model
from .writing import Asked

#: A prompt of more characters for each token that the graph takes is refused unread: tokens have
#: four on average, and reading all of one that is far too long takes seconds.
CHARACTERS = 64


def prepared(session: Model, asked: oai.Writing, most: int) -> tuple[Asked, int]:
    """What a thread is to write, of at most `most` tokens, and the tokens of the prompt.

    Raises:
        ConfigError: the model writes no text, or takes no such prompt.
    """
    signature = session.signature
    if not signature.components and not is_causal(signature):
        raise ConfigError(f"a graph for {signature.task} writes no text")
    chat = isinstance(asked, oai.Chat)
    sampling = asked.sampling(most)
    text = asked.prompt if isinstance(asked, oai.Completion) else ""
    if isinstance(asked, oai.Chat):
        text = session.prompt([message.plain for message in asked.messages])
    limit = session.encoder.max_length
    if limit and len(text) > limit * CHARACTERS:
        what = f"a text has {len(text):,} characters, the graph takes {limit} tokens"
        raise ConfigError(what, mend="give a shorter one")
    count = len(session.encoder.whole([text], special=not chat)[0].ids)
    if not count:
        raise ConfigError("a prompt without a token", mend="give at least a word")
    return Asked(text, sampling, chat), count
