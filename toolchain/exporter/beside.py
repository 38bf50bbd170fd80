"""What travels with an export: tokenizer, configurations, chat template, licences."""

import shutil
from pathlib import Path

from ... import ExportError

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
    "sentence_bert_config.json",
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
    if (folder / "tokenizer.json").is_file():
        return []
    if not any(path for kind in _VOCABULARIES for path in checkpoint.glob(kind)):
        return ["the checkpoint has no tokenizer"]
    return _convert(checkpoint, folder, trust_remote_code)


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
