"""`llmdeploy init MODEL`: a commented llmdeploy.toml fit for that model, from its small files."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import ConfigError, Error, ExportError
from .checkpoint import locate, read_json, refuse_pickles
from .config import load
from .config_text import text
from .longest import limit_of, longest
from .paths import PREFIX, resolve
from .workspace import write_text

#: The end of an architecture's name -> its task.
_TASKS: Mapping[str, str] = {
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
    "ForNextSentencePrediction": "next-sentence-prediction",
    "ForImageClassification": "image-classification",
    "ForAudioClassification": "audio-classification",
    "ForCTC": "ctc",
}
_TEXT = ("fill-mask", "text-classification", "token-classification", "feature-extraction")
#: How many places a position table has.
_TABLES = ("max_position_embeddings", "n_positions")
#: Models whose tokens' places begin after the padding's number: the table has room for fewer.
_FROM_PADDING = (
    *("camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke"),
    *("markuplm", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl"),
    "xmod",
)
#: All that is fetched of a hub's repository.
_SMALL = ("*.json",)
#: Above this many bytes of weights a second copy of them is not made unasked.
_LARGE = 8 * 10**9
_NOTE = """\
# llmdeploy.toml for {name}, written by `llmdeploy init`.
#
# Every key is here. A key behind a `#` shows its default, or an example where it has none: take
# the `#` away to set it. Relative paths in it start at this file's folder; `package:NAME/inner`
# lies inside an installed package. The workspace, `artifacts/`, lies where the command is run: `-w`
# names another.
"""


@dataclass(frozen=True)
class Facts:
    """What a checkpoint's small files say; `longest` in tokens, `weights` in bytes, 0: unknown."""

    architecture: str
    task: str
    longest: int
    dtype: str
    weights: int
    own_code: bool


def initialize(checkpoint: str, path: Path, *, force: bool = False) -> dict[str, Any]:
    """Write a commented configuration for a checkpoint; what it says of the model is returned.

    Raises:
        ConfigError: `path` is there and `force` is not given, or there is no such checkpoint.
        MissingError: the hub cannot be reached.
        Error: `path` cannot be written.
    """
    if path.exists() and not force:
        raise ConfigError(f"{path} is there already", mend="pass --force to replace it")
    place = str(resolve(checkpoint, Path())) if _packaged(checkpoint) else checkpoint
    folder = locate(place, wanted=_SMALL)
    facts = _told(folder)
    named = _named(checkpoint, path.parent)
    _write(path, render(facts, values(facts, named)))
    load(path)
    return {
        "path": str(path),
        "checkpoint": named,
        "task": facts.task,
        "architecture": facts.architecture,
        "refused": refused(folder) if Path(place).expanduser().is_dir() else None,
    }


def refused(folder: Path) -> str | None:
    """Why an export would refuse the weights of a folder, None where it takes them."""
    from .exporter.stored import stored

    if any(folder.glob("*.gguf")):
        return None  # what it packs is read by torch's own reader
    try:
        refuse_pickles(folder)
        stored(folder)
    except ExportError as error:
        return str(error)
    return None


def _told(folder: Path) -> Facts:
    """The facts of a checkpoint that a user named: what is wrong with its files is wrong input."""
    try:
        return read(folder)
    except ExportError as error:
        raise ConfigError(error.what, where=error.where, mend=error.mend) from error


def read(folder: Path) -> Facts:
    """Read a checkpoint's config.json and the few small files beside it; weights are only sized."""
    config = read_json(folder / "config.json")
    text = config.get("text_config") or config
    encoder = (folder / "modules.json").is_file()
    architecture = next(iter(config.get("architectures") or ()), config.get("model_type", ""))
    ends = (task for end, task in _TASKS.items() if architecture.endswith(end))
    return Facts(
        architecture=architecture or "a checkpoint without architecture",
        task="feature-extraction" if encoder else next(ends, "auto"),
        longest=_longest(folder, text),
        dtype=str(text.get("dtype") or text.get("torch_dtype") or ""),
        weights=_weights(folder),
        own_code="auto_map" in config,
    )


def _weights(folder: Path) -> int:
    """Bytes of the weights: those on disk, or what the index of a hub's repository says."""
    there = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    index = read_json(folder / "model.safetensors.index.json").get("metadata")
    stated = index.get("total_size") if isinstance(index, dict) else None
    return there or (int(stated) if isinstance(stated, int | float) else 0)


def _longest(folder: Path, config: Mapping[str, Any]) -> int:
    """What its files say a text is cut after, or fewer where its position table has no room."""
    places = (limit_of(config.get(key)) for key in _TABLES)
    rooms = (most - _taken(config) for most in places if most)
    return min(filter(None, (longest(folder), *rooms)), default=0)


def _taken(config: Mapping[str, Any]) -> int:
    """Places of the position table that no token takes."""
    if config.get("model_type") not in _FROM_PADDING:
        return 0
    padding = config.get("pad_token_id")
    return padding + 1 if isinstance(padding, int) else 2


def values(facts: Facts, checkpoint: str) -> dict[str, dict[str, object]]:
    """The keys, by section, whose value this model decides."""
    model: dict[str, object] = {"checkpoint": checkpoint, "task": facts.task}
    if facts.weights > _LARGE and facts.dtype in ("", "float32"):  # others are written anew
        model["weights"] = "reference"
    chosen: dict[str, dict[str, object]] = {"model": model}
    if facts.task != "text-generation":  # what logits are worth its perplexity tells
        chosen["gate"] = {"min-cosine": 0.99}
    chosen["bundle"] = {"name": _bundle(checkpoint)}
    if facts.longest:
        chosen["calibration"] = {"max-length": min(facts.longest, 128)}
        chosen["evaluation"] = {"max-length": min(facts.longest, 256)}
    if facts.task == "fill-mask":  # its head is most of its work, and reads every token
        chosen["quantize"] = {"head": True}
    if profile := _profile(facts):
        chosen["build"] = {"profile": profile}
    return chosen


def _profile(facts: Facts) -> dict[str, tuple[int, int, int]]:
    """Sizes of the dimensions of texts, and of a causal model's cache; of others none is known."""
    if facts.task in _TEXT:
        most = min(facts.longest or 512, 512)
        return {"batch": (1, 1, 8), "sequence": (1, min(128, most), most)}
    if facts.task == "text-generation":
        most = min(facts.longest or 2048, 2048)
        usual = min(256, most - 1)
        prompt = min(128, most - usual)  # one token at a time has a profile of its own
        sizes = {"sequence": (1, prompt, min(512, most)), "past": (0, usual, most - 1)}
        return {"batch": (1, 1, 4), **sizes, "total": (1, usual + prompt, most)}
    return {}


def render(facts: Facts, chosen: Mapping[str, Mapping[str, object]]) -> str:
    """The file's text: every key of every section, in order."""
    head = _NOTE.format(name=" ".join(facts.architecture.split()))
    if facts.own_code:
        head += "# This checkpoint asks to run its own code: see trust-remote-code.\n"
    if facts.dtype and facts.dtype != "float32":
        head += f"# Its weights are {facts.dtype}: see dtype.\n"
    return f"{head}\n{text(chosen)}"


def _bundle(checkpoint: str) -> str:
    package = checkpoint.removeprefix(PREFIX).partition("/")[0]
    return package if _packaged(checkpoint) else Path(checkpoint).name or "model"


def _packaged(checkpoint: str) -> bool:
    return checkpoint.startswith(PREFIX)


def _named(checkpoint: str, folder: Path) -> str:
    """The checkpoint as the file names it: a folder, or a GGUF file, relative to its own folder."""
    path = Path(checkpoint).expanduser()
    if _packaged(checkpoint) or path.is_absolute() or not path.exists():
        return checkpoint
    return Path(os.path.relpath(path, folder)).as_posix()


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        mend = "mend the permissions, or pass --config FILE"
        raise Error(f"cannot write: {error.strerror}", where=path, mend=mend) from error
