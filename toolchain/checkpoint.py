"""Where a checkpoint lies, what of it is refused, and its digest without reading its weights."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import ConfigError, ExportError, MissingError

#: What is fetched of a hub repository: never a pickle.
WANTED = (
    "*.safetensors",
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "LICENSE*",
    "NOTICE*",
    "README*",
)
UNWANTED = ("original/*", "consolidated*", "onnx/*", "openvino/*")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
WEIGHTS = (".safetensors", ".gguf")
INDEX = "model.safetensors.index.json"


def locate(checkpoint: str, revision: str | None = None, *, wanted: Sequence[str] = WANTED) -> Path:
    """The folder of a checkpoint: a path, or a hub id fetched through huggingface_hub.

    A GGUF file is a checkpoint by itself.

    Of a hub's repository only the files that fit `wanted` are fetched.

    Raises:
        ConfigError: no such folder, no such model or revision, no config.json in it, or a revision
            of a folder.
        MissingError: the hub cannot be reached and the model is not in its cache.
    """
    path = Path(checkpoint).expanduser()
    if not checkpoint:
        raise ConfigError("no checkpoint", mend="name a hub id or a folder")
    if revision and path.exists():
        raise ConfigError(
            f"{checkpoint} is on this disk, where there is no revision {revision!r}",
            where="[model] revision",
            mend="leave it out, or name the hub's repository",
        )
    if path.suffix == ".gguf" and path.is_file():
        return path
    if path.is_file():
        raise ConfigError(f"{checkpoint} is a file", mend="name the folder that holds config.json")
    folder = path if path.is_dir() else _fetch(checkpoint, revision, wanted)
    if not (folder / "config.json").is_file() and not any(folder.glob("*.gguf")):
        raise ConfigError(
            "no config.json", where=folder, mend="name a folder that save_pretrained wrote"
        )
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of the checkpoint; empty when the file is not there.

    Raises:
        ExportError: it is not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError("not JSON", where=path, mend="download the checkpoint again") from error
    if not isinstance(value, dict):
        raise ExportError("not a JSON object", where=path, mend="download the checkpoint again")
    return value


def refuse_code(folder: Path, trust_remote_code: bool) -> None:
    """Refuse a checkpoint that brings its own Python code, before anything of it is imported.

    Raises:
        ConfigError: `auto_map` is there and the code is not trusted.
    """
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        if "auto_map" in read_json(folder / name) and not trust_remote_code:
            raise ConfigError(
                f"{name} asks to run the checkpoint's own code (auto_map)",
                where=folder,
                mend="read that code, then pass --trust-remote-code",
            )


def refuse_pickles(folder: Path) -> None:
    """Refuse a checkpoint whose weights are only in a pickle.

    Raises:
        ExportError: there is no safetensors or GGUF file.
    """
    if any(path.suffix in WEIGHTS for path in folder.iterdir()):
        return
    shards = read_json(folder / INDEX).get("weight_map")
    if isinstance(shards, dict) and shards:
        name = min(map(str, shards.values()))
        raise ExportError(f"shard {name} is missing", where=folder, mend="download it again")
    pickles = sorted(path.name for kind in PICKLES for path in folder.glob(kind))
    if pickles:
        raise ExportError(
            f"its weights are only in {pickles[0]}, a pickle that can run code",
            where=folder,
            mend="convert it in a sandbox: from_pretrained(...).save_pretrained(OUT)",
        )
    raise ExportError("no weights (*.safetensors)", where=folder, mend="download the checkpoint")


def digest(folder: Path) -> str:
    """sha256 over small files' content, and over weight files' header, size and time.

    A weight file in the hub's cache is a link to a blob named by its own sha256: that name then
    stands for its content.
    """
    found = hashlib.sha256()
    for path in sorted(_relevant(folder)):
        found.update(path.relative_to(folder).as_posix().encode())
        if path.suffix in WEIGHTS:
            found.update(_weights(path))
            continue
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: found)  # goes on with it, in blocks
    return found.hexdigest()


def _relevant(folder: Path) -> list[Path]:
    """What an export depends on: no pickle, no picture, and no graph that was written beside.

    Nor what is hidden (.git), nor a workspace, which the export itself fills.
    """
    if folder.is_file():
        return [folder]
    kinds = (*WEIGHTS, ".json", ".txt", ".model", ".jinja", ".py", ".md", "")
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    inner = [path for path in found if path.is_dir() and not path.is_symlink()]
    files = [path for path in found if path.is_file() and path.suffix in kinds]
    below = (_relevant(path) for path in inner if not _staged(path))
    return [*files, *(path for each in below for path in each)]


def _staged(folder: Path) -> bool:
    """Whether it is a workspace, or a stage of one."""
    return (folder / "stage.json").is_file() or any(folder.glob("*/stage.json"))


def _weights(path: Path) -> bytes:
    blob = path.resolve()
    if path.is_symlink() and blob.parent.name == "blobs":
        return blob.name.encode()
    stat = path.stat()
    with path.open("rb") as file:
        start = file.read(1 << 20)
    return start + f"{stat.st_size} {stat.st_mtime_ns}".encode()


def _fetch(checkpoint: str, revision: str | None, wanted: Sequence[str]) -> Path:
    import huggingface_hub as hub
    from huggingface_hub import errors, utils

    looks_local = checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1
    try:
        utils.validate_repo_id(checkpoint)
    except errors.HFValidationError as error:
        looks_local, cause = True, error
    else:
        cause = None
    if looks_local:
        raise ConfigError(f"no folder {checkpoint}", mend="name a hub id or a folder") from cause
    try:
        return Path(
            hub.snapshot_download(
                checkpoint,
                revision=revision,
                allow_patterns=[*wanted],
                ignore_patterns=[*UNWANTED],
            )
        )
    except errors.GatedRepoError as error:
        raise ConfigError(
            f"{checkpoint} is gated",
            mend="accept its terms on the hub, then `hf auth login`",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        at = f" at {revision}" if revision else ""
        raise ConfigError(
            f"the hub has no model {checkpoint}{at}",
            mend="correct the name, or `hf auth login` if it is private",
        ) from error
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError) as error:
        raise MissingError(
            f"{checkpoint} is neither a folder nor in the hub's cache, and the hub is out of reach",
            mend="unset HF_HUB_OFFLINE or mend the network, or name a folder",
        ) from error
