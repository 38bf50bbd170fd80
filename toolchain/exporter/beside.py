"""What travels with an export: tokenizer, configurations, chat template, licences."""

import shutil
from pathlib import Path

from ... import ExportError
from ..longest import SENTENCE, sentence

FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "config_sentence_transformers.json",
    *SENTENCE,
)
LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "README*", "USE_POLICY*")
#: What an old tokenizer is made of, where no tokenizer.json was saved.
_VOCABULARIES = ("vocab.txt", "vocab.json", "*.model", "merges.txt", "tokenizer_config.json")


def carry(checkpoint: Path, folder: Path, trust_remote_code: bool) -> list[str]:
    """Copy what belongs to the model beside it; notes on what could not be.

    The runtime needs tokenizer.json alone: where the checkpoint has an old vocabulary only, it is
    converted.
    """
    found = [checkpoint / name for name in FILES if (checkpoint / name).is_file()]
    found += [path for kind in LICENCES for path in checkpoint.glob(kind) if path.is_file()]
    for path in found:
        shutil.copyfile(path, folder / path.name)
    notes: list[str] = []
    if not (folder / "tokenizer.json").is_file():
        if not any(path for kind in _VOCABULARIES for path in checkpoint.glob(kind)):
            return ["the checkpoint has no tokenizer"]
        notes = _convert(checkpoint, folder, trust_remote_code)
    if not notes and sentence(checkpoint).get("do_lower_case") is True:
        _lower(folder / "tokenizer.json")
    return notes


def _lower(path: Path) -> None:
    """Have a tokenizer read capitals as small letters, as sentence-transformers has it do."""
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Lowercase, Sequence

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise ExportError(f"tokenizer.json cannot be read: {error}", where=path) from error
    own = tokenizer.normalizer
    if own is None or own.normalize_str("A") != "a":
        tokenizer.normalizer = Sequence([Lowercase(), *([own] if own else [])])
        tokenizer.save(str(path))


def _convert(checkpoint: Path, folder: Path, trust_remote_code: bool) -> list[str]:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(checkpoint), trust_remote_code=trust_remote_code
        )
        tokenizer.save_pretrained(str(folder))
    except Exception as error:
        raise ExportError(
            f"the tokenizer cannot be converted to tokenizer.json: {error}",
            where=checkpoint,
            mend="save it with a fast tokenizer: AutoTokenizer.from_pretrained(..).save_pretrained",
        ) from error
    if not (folder / "tokenizer.json").is_file():
        return ["this tokenizer has no tokenizer.json form: texts must be tokenized outside"]
    return []
