"""The Triton packager: a model repository with tokenizer, engine and answers as one ensemble."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .. import BundleError, ConfigError
from . import triton_config as configs
from .archive import Source
from .bundle import MANIFEST, digest
from .contents import Contents
from .gather import below, engine, sealed, shared
from .manifests import size_of, written
from .places import MODELS
from .signature import FILE, Signature
from .text import TOKENIZER
from .triton_config import Options

HERE = Path(__file__).parent
#: Our own modules that the Python backend's models run with, copied beside them.
MODULES = ("signature.py", "text.py", "answers.py", "ort_session.py")
#: Files of the checkpoint that the tokenizer and the answers read.
READ = (FILE, TOKENIZER, "config.json")
CONFIG = "config.pbtxt"
MODELS_FOLDER = "models"
#: Our backend's name to Triton's, and the name that Triton expects of its file.
BACKENDS = {"onnxruntime": ("onnxruntime", "model.onnx"), "tensorrt": ("tensorrt", "model.plan")}


@dataclass(frozen=True)
class Repository:
    """A repository that is being written: `models`/MODEL/config.pbtxt and MODEL/VERSION/."""

    folder: Path
    contents: Contents
    options: Options
    signature: Signature

    @property
    def models(self) -> Path:
        """What tritonserver is given."""
        return self.folder / MODELS_FOLDER

    def model(self, part: str) -> str:
        """The name of a part's model; the ensemble has the name alone."""
        name = self.contents.name
        return f"{name}-{part}" if part else name

    def version(self, part: str) -> Path:
        """The folder of a part's version, made."""
        path = self.models / self.model(part) / str(self.options.version)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, part: str, config: Any) -> None:
        """Write a part's config.pbtxt, and beside the version too, to go back to."""
        written = configs.text(config)
        for folder in (self.version(part), self.models / self.model(part)):
            (folder / CONFIG).write_text(written, encoding="utf-8")


def pack(contents: Contents, folder: Path) -> dict[str, Any]:
    """Write `folder`/NAME-VERSION with `models`, a repository that tritonserver takes.

    Beside it lie manifest, bill and golden runs, by which it verifies itself as an edge bundle
    does. `contents.options["triton"]` may hold the fields of `Options`. An engine for which
    Triton has no backend (TensorRT-RTX) is left out and named.

    Raises:
        ConfigError: an unknown option, or the engine it names is not there.
        MissingError: tritonclient is not installed.
    """
    options = _options(contents.options.get("triton", {}))
    if options.engine not in contents.engines or options.engine not in BACKENDS:
        names = ", ".join(name for name in contents.engines if name in BACKENDS) or "none"
        raise ConfigError(
            f"no {options.engine} engine that Triton could run", mend=f"there are: {names}"
        )
    source = contents.engines[options.engine]
    manifests = written(
        contents.name,
        contents.version,
        image=options.image,
        storage=options.storage,
        gpu=options.kind == "gpu",
        engine_bytes=size_of(source),
        versions=contents.versions,
    )
    files: dict[str, Source] = {**shared(contents), **manifests}
    signature = Signature.load(contents.assets)
    root = Repository(folder / f"{contents.name}-{contents.version}", contents, options, signature)
    _engine(root)
    parts = ["engine"]
    if signature.input("input_ids") and (contents.assets / TOKENIZER).is_file():
        parts += _around(root)
    sizes = _seal(root, files)
    return {
        "path": root.folder.name,
        "sha256": digest(root.folder / MANIFEST),
        "bytes": sum(sizes),
        "files": len(sizes),
        "models": [root.model(part) for part in sorted(parts)],
        "version": options.version,
        "left_out": sorted(name for name in contents.engines if name != options.engine),
    }


def _seal(root: Repository, files: dict[str, Source]) -> list[int]:
    """Write what every bundle holds beside the models; the size of every file."""
    backend = root.options.engine
    version = f"{MODELS_FOLDER}/{root.model('engine')}/{root.options.version}"
    whole = sealed(
        root.contents,
        {**files, **below(root.models, MODELS_FOLDER)},
        [engine(root.contents, backend, version)],
    )
    for name, source in whole.items():
        path = root.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, bytes):
            path.write_bytes(source)
        elif source != path:
            shutil.copyfile(source, path)
    return [(root.folder / name).stat().st_size for name in whole]


def _options(given: Mapping[str, Any]) -> Options:
    try:
        return Options.model_validate({key.replace("-", "_"): given[key] for key in given})
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        mend = f"it takes {', '.join(Options.model_fields)}"
        raise ConfigError(f"{problem['msg']}: {key}", where="[bundle.triton]", mend=mend) from error


def _engine(root: Repository) -> None:
    """The engine's files and configuration, warmed up by the first golden run."""
    contents = root.contents
    source = contents.engines[root.options.engine]
    own = Signature.load(source) if (source / FILE).is_file() else root.signature
    backend, file = BACKENDS[root.options.engine]
    version = root.version("engine")
    if root.options.python_engine:
        backend, file = "python", "model.py"
        _python(version, "engine")
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name not in (*READ, "stage.json"):
            shutil.copyfile(path, version / _named(path, file))
    if not (version / file).is_file():
        raise BundleError(f"no {file} to serve", where=source)
    config = configs.engine(
        root.model("engine"), own, root.options, backend=backend, file=file, settings={}
    )
    files = configs.warm(config, contents.golden[0].feed, own, root.options)
    warmup = root.models / root.model("engine") / "warmup"
    warmup.mkdir()
    for name, data in files.items():
        (warmup / name).write_bytes(data)
    root.write("engine", config)


def _named(path: Path, file: str) -> str:
    """Triton's name for an engine's file; weights keep theirs, which the graph refers to."""
    is_plan = path.suffix in (".plan", ".engine") and file.endswith(".plan")
    is_graph = path.name in MODELS and file.endswith(".onnx")
    return file if is_plan or is_graph else path.name


def _around(root: Repository) -> list[str]:
    """Tokenizer before the engine, answers after it where labels are known, and the ensemble."""
    signature, options, contents = root.signature, root.options, root.contents
    parts = ["tokenizer", "answers"] if signature.labels else ["tokenizer"]
    for part in parts:
        version = root.version(part)
        _python(version, part)
        for name in READ:
            if (contents.assets / name).is_file():
                shutil.copyfile(contents.assets / name, version / name)
        (version / "max_length").write_text(f"{options.max_length}\n", encoding="utf-8")
    gives = signature.inputs
    tokenizer = configs.python(
        root.model("tokenizer"), signature, options, takes=(), gives=gives, texts=True
    )
    root.write("tokenizer", tokenizer)
    if signature.labels:
        answers = configs.python(
            root.model("answers"),
            signature,
            options,
            takes=signature.outputs,
            gives=(),
            texts=True,
        )
        root.write("answers", answers)
    names = {part: root.model(part) for part in (*parts, "engine")}
    whole = configs.ensemble(
        contents.name, signature, options, answers=bool(signature.labels), parts=names
    )
    root.write("", whole)
    return [*parts, ""]


def _python(version: Path, part: str) -> None:
    """A model of the Python backend, with those of our modules that it runs with."""
    shutil.copyfile(HERE / "triton_models" / f"{part}.py", version / "model.py")
    package = version / "llmdeploy"
    (package / "deploy").mkdir(parents=True)
    shutil.copyfile(HERE.parent / "__init__.py", package / "__init__.py")
    shutil.copyfile(HERE / "__init__.py", package / "deploy" / "__init__.py")
    for name in MODULES:
        shutil.copyfile(HERE / name, package / "deploy" / name)
