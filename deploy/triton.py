"""The Triton packager: a model repository with tokenizer, engine and answers as one ensemble."""

import shutil
import tempfile
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
from .misfit import misfit
from .places import MODELS
from .signature import FILE, Signature
from .text import TOKENIZER, from_text
from .triton_config import Options, Part
from .triton_stages import Stage, placed, stages

HERE = Path(__file__).parent
#: Our own modules that the Python backend's models run with, copied beside them.
MODULES = ("misfit.py", "signature.py", "text.py", "answers.py", "ort_session.py")
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
        ConfigError: an unknown option, the engine it names is not there, or a model of several
            graphs.
        MissingError: tritonclient is not installed.
    """
    options = _options(contents.options.get("triton", {}))
    if options.engine not in contents.engines or options.engine not in BACKENDS:
        names = ", ".join(name for name in contents.engines if name in BACKENDS) or "none"
        raise ConfigError(
            f"no {options.engine} engine that Triton could run", mend=f"there are: {names}"
        )
    source = contents.engines[options.engine]
    signature = Signature.load(contents.assets)
    if signature.components:
        raise ConfigError(
            f"Triton is given one graph, and the model has {', '.join(signature.components)}",
            where="[bundle] kinds",
            mend="leave triton out; an edge bundle has them, and `llmdeploy serve` writes by them",
        )
    root = Repository(folder / f"{contents.name}-{contents.version}", contents, options, signature)
    texts = from_text(signature) and (contents.assets / TOKENIZER).is_file()
    manifests = written(
        contents.name,
        contents.version,
        image=options.image,
        storage=options.storage,
        gpus=max(options.gpus, default=0) + 1 if options.kind == "gpu" else 0,
        policies=options.host_policies,
        engine_bytes=size_of(source),
        versions=contents.versions,
        python_engine=options.python_engine,
        first=root.model("" if texts or options.stages > 1 else "engine"),
    )
    files: dict[str, Source] = {**shared(contents), **manifests}
    engines = _engines(root, texts)
    parts = [*engines, *(_around(root, engines, texts) if texts or len(engines) > 1 else [])]
    sizes = _seal(root, files, list(engines))
    return {
        "path": root.folder.name,
        "sha256": digest(root.folder / MANIFEST),
        "bytes": sum(sizes),
        "files": len(sizes),
        "models": sorted(root.model(part) for part in parts),
        "version": options.version,
        "left_out": sorted(name for name in contents.engines if name != options.engine),
    }


def _seal(root: Repository, files: dict[str, Source], engines: list[str]) -> list[int]:
    """Write what every bundle holds beside the models; the size of every file."""
    backend = root.options.engine
    places = [f"{MODELS_FOLDER}/{root.model(part)}/{root.options.version}" for part in engines]
    path, stages = (places[0], []) if len(places) == 1 else (MODELS_FOLDER, places)
    whole = sealed(
        root.contents,
        {**files, **below(root.models, MODELS_FOLDER)},
        [engine(root.contents, backend, path, stages)],
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
        mend = f"it takes {', '.join(Options.model_fields)}"
        raise ConfigError(misfit(error), where="[bundle.triton]", mend=mend) from error


def _engines(root: Repository, texts: bool) -> dict[str, Part]:
    """The engine's model, or those of its stages, by part: what each is in the ensemble."""
    contents, options = root.contents, root.options
    before = "in." if texts else ""
    names = {tensor.name: f"{before}{tensor.name}" for tensor in root.signature.inputs}
    if options.stages == 1:
        source = contents.engines[options.engine]
        own = Signature.load(source) if (source / FILE).is_file() else root.signature
        one = Stage(source, own, contents.golden[0].feed)
        return {"engine": _engine(root, "engine", one, options, names)}
    with tempfile.TemporaryDirectory(prefix="llmdeploy-") as aside:
        made = stages(contents, options, Path(aside))
        return {
            f"stage-{index}": _engine(root, f"stage-{index}", stage, placed(options, index), names)
            for index, stage in enumerate(made)
        }


def _engine(
    root: Repository, part: str, stage: Stage, options: Options, names: Mapping[str, str]
) -> Part:
    """An engine's or a stage's files and configuration, warmed up by the first golden run."""
    backend, file = BACKENDS[options.engine]
    version, own = root.version(part), stage.signature
    if options.python_engine:
        backend, file = "python", "model.py"
        _python(version, "engine")
    for path in sorted(stage.folder.iterdir()):
        if path.is_file() and path.name not in (*READ, "stage.json"):
            shutil.copyfile(path, version / _named(path, file))
    if not (version / file).is_file():
        raise BundleError(f"no {file} to serve", where=stage.folder)
    config = configs.engine(root.model(part), own, options, backend=backend, file=file, settings={})
    files = configs.warm(config, stage.feed, own, options)
    warmup = root.models / root.model(part) / "warmup"
    warmup.mkdir()
    for name, data in files.items():
        (warmup / name).write_bytes(data)
    root.write(part, config)
    takes = {tensor.name: names.get(tensor.name, tensor.name) for tensor in own.inputs}
    return Part(root.model(part), takes, {tensor.name: tensor.name for tensor in own.outputs})


def _named(path: Path, file: str) -> str:
    """Triton's name for an engine's file; weights keep theirs, which the graph refers to."""
    is_plan = path.suffix in (".plan", ".engine") and file.endswith(".plan")
    is_graph = path.name in MODELS and file.endswith(".onnx")
    return file if is_plan or is_graph else path.name


def _around(root: Repository, engines: Mapping[str, Part], texts: bool) -> list[str]:
    """Tokenizer before the engine, answers after it where labels are known, and the ensemble."""
    signature, options = root.signature, root.options
    before = [_tokenizer(root)] if texts else []
    after = [_answers(root)] if texts and signature.labels else []
    whole = configs.ensemble(
        root.contents.name,
        signature,
        options,
        [*before, *engines.values(), *after],
        texts=texts,
        answers=bool(after),
    )
    root.write("", whole)
    names = ("tokenizer", "answers")
    return [*(part for part, there in zip(names, (before, after), strict=True) if there), ""]


def _tokenizer(root: Repository) -> Part:
    signature, model = root.signature, root.model("tokenizer")
    config = configs.python(
        model, signature, root.options, takes=(), gives=signature.inputs, texts=True
    )
    _text_model(root, "tokenizer", config)
    gives = {tensor.name: f"in.{tensor.name}" for tensor in signature.inputs}
    return Part(model, {"TEXT": "TEXT"}, gives)


def _answers(root: Repository) -> Part:
    signature, model = root.signature, root.model("answers")
    config = configs.python(
        model, signature, root.options, takes=signature.outputs, gives=(), texts=True
    )
    _text_model(root, "answers", config)
    takes = {tensor.name: tensor.name for tensor in signature.outputs}
    return Part(model, {"TEXT": "TEXT", **takes}, {"ANSWER": "ANSWER"})


def _text_model(root: Repository, part: str, config: Any) -> None:
    """A model of the Python backend that reads the checkpoint's small files."""
    version, assets = root.version(part), root.contents.assets
    _python(version, part)
    for name in READ:
        if (assets / name).is_file():
            shutil.copyfile(assets / name, version / name)
    (version / "max_length").write_text(f"{root.options.max_length}\n", encoding="utf-8")
    root.write(part, config)


def _python(version: Path, part: str) -> None:
    """A model of the Python backend, with those of our modules that it runs with."""
    shutil.copyfile(HERE / "triton_models" / f"{part}.py", version / "model.py")
    package = version / "llmdeploy"
    (package / "deploy").mkdir(parents=True)
    shutil.copyfile(HERE.parent / "__init__.py", package / "__init__.py")
    shutil.copyfile(HERE / "__init__.py", package / "deploy" / "__init__.py")
    for name in MODULES:
        shutil.copyfile(HERE / name, package / "deploy" / name)
