"""Where a text is cut, by what a checkpoint's small files say of it."""

from pathlib import Path

from .checkpoint import read_json

#: sentence-transformers' settings of a transformer, under all the names that it ever wrote.
SENTENCE = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


def longest(folder: Path) -> int | None:
    """The most tokens of a text: a sentence encoder's `max_seq_length`, else the tokenizer's own.

    The former counts in place of the latter, as it does in sentence-transformers. None where
    neither is told: of the model itself nothing is known here.

    Raises:
        ExportError: a file is not a JSON object.
    """
    stated = sentence(folder).get("max_seq_length")
    told = read_json(folder / "tokenizer_config.json").get("model_max_length")
    limits = (limit for limit in map(limit_of, (stated, told)) if limit)
    return next(limits, None)


def sentence(folder: Path) -> dict[str, object]:
    """A sentence encoder's settings of its transformer; empty where the checkpoint is none.

    Raises:
        ExportError: a file is not a JSON object.
    """
    if not (folder / "modules.json").is_file():
        return {}
    return next(filter(None, (read_json(folder / name) for name in SENTENCE)), {})


def limit_of(value: object) -> int | None:
    """A number of tokens, None where it limits nothing: a tokenizer writes 1e30 for that."""
    return int(value) if isinstance(value, int | float) and 1 < value < 1 << 31 else None
