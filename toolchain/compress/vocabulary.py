"""The pass `vocabulary` fitted to a model: tokens that the samples never have lose their rows."""

from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir

from ... import ConfigError
from ...passes import load
from ...passes.vocabulary import KeepIds, Vocabulary, vocabulary_size, wide_outputs
from ..narrowing import Narrowing
from .subject import Subject
from .tokens import needed, read, unknown


def vocabulary(subject: Subject, asked: Vocabulary) -> tuple[ir.Model, dict[str, Any], Narrowing]:
    """The model with fewer tokens, what is told, and the ids that stay.

    Raises:
        ConfigError: no samples, no tokens or no tokenizer; or the task has several graphs, which
            would have to lose the same.
        PassError: something but an embedding reads token ids, or the head cannot be followed.
    """
    if not subject.fit:
        raise ConfigError("vocabulary needs samples", where="[calibration] samples")
    if not subject.tokens or subject.assets is None:
        raise ConfigError(
            "vocabulary needs one graph that takes token ids, and its tokenizer",
            where=subject.model,
            mend='leave `use = "vocabulary"` out',
        )
    model, tokenizer = load(subject.model), read(subject.assets)
    size = vocabulary_size(model, subject.tokens)
    ends = wide_outputs(model, subject.tokens)
    seen = [token for token, times in _counted(subject).items() if times >= asked.least]
    ids = tuple(i for i in needed(tokenizer, subject.assets, seen, asked.common) if i < size)
    KeepIds(ids, subject.tokens)(model)
    none = unknown(tokenizer)
    narrowing = Narrowing(
        cuts={name: (axis, ids) for name, axis in ends.items()},
        ids=ids,
        tokens=subject.tokens,
        unknown=ids.index(none) if none in ids else 0,
    )
    told = {"before": size, "after": len(ids), "seen": len(seen)}
    return model, {"vocabulary": told}, narrowing


def _counted(subject: Subject) -> Counter[int]:
    """How often each token occurs in all samples, held-out ones too."""
    counts: Counter[int] = Counter()
    for feed in (*subject.fit, *subject.held_out):
        for name in subject.tokens:
            found, times = np.unique(np.asarray(feed[name]), return_counts=True)
            counts.update(dict(zip(found.tolist(), times.tolist(), strict=True)))
    return counts
