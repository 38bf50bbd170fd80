"""The `onnxruntime` backend: lowered and optimised once, saved so, opened as it is."""

import importlib.util
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .. import BuildError, ConfigError
from .backend import Built, Feed, Profile, Run, Takes
from .misfit import misfit
from .ort_session import Settings, fitting, onnxruntime, open_session, options

if TYPE_CHECKING:
    import onnx_ir as ir

#: FP8 is not among them: the CPU has no kernel of it.
PRECISIONS = frozenset({"fp32", "fp16", "int8", "w8a16", "w8", "int4"})
#: Weights smaller than this stay in the graph.
INLINE_BYTES = 1024


class Options(BaseModel):
    """What `[build.options.onnxruntime]` may say.

    `tune` measures other settings on this machine and keeps what is faster beyond noise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    threads: int = Field(default=0, ge=0)
    spinning: bool = True
    arena: bool = True
    prepacking: bool = True
    tune: bool = False


class OnnxRuntime:
    """ONNX Runtime, on the CPU unless a GPU provider is asked for."""

    name: ClassVar[str] = "onnxruntime"
    precisions: ClassVar[frozenset[str]] = PRECISIONS
    takes: ClassVar[Takes] = Takes(attention=PRECISIONS)
    #: Quantised weights may have zero points other than 0.
    zero_points: ClassVar[bool] = True
    #: Embeddings and heads of blocks of int8 are read as they are.
    tables: ClassVar[bool] = True
    #: Its INT8 is faster on some CPUs where the products of two weights fit in 16 bits.
    pairs: ClassVar[bool] = True
    accepts: ClassVar[type[BaseModel]] = Options

    def missing(self) -> str | None:
        """Why no engine can be built here: onnxruntime is not installed."""
        if importlib.util.find_spec("onnxruntime") is None:
            return "onnxruntime is not installed, pip install 'llmdeploy[cpu]'"
        return None

    def unexecutable(self) -> str | None:
        """What can be built can be executed, on the CPU."""
        return self.missing()

    def lowering(self, precision: str) -> Sequence["ir.passes.PassBase"]:
        """Q/DQ to integer kernels, attention to the standard operator's one kernel.

        Where weights alone are quantised, activations are quantised row by row as they run.
        """
        from .ort_attention import FuseAttention, hidden_rows_are_zero
        from .ort_gelu import RoundedGelu
        from .ort_int8 import IntegerMatMul
        from .ort_kept import KeepLogits
        from .ort_norm import ShareNorm
        from .ort_outliers import PickSooner
        from .ort_rows import SliceRows
        from .ort_tied import TiedMatMul
        from .ort_weights import WeightOnlyMatMul
        from .sequences import SplitSequences

        fused = precision in self.takes.attention
        return (
            SplitSequences(),
            PickSooner(),
            IntegerMatMul(),
            WeightOnlyMatMul(),
            TiedMatMul(),
            ShareNorm(),
            RoundedGelu(),
            SliceRows(),
            *([FuseAttention(hide=hidden_rows_are_zero())] if fused else []),
            KeepLogits(),
        )

    def build(
        self, model: Path, folder: Path, profile: Profile, options: Mapping[str, object]
    ) -> Built:
        """Let ONNX Runtime optimise a lowered file and save it with its settings.

        Raises:
            MissingError: onnxruntime is not here, or the asked provider fell back to the CPU.
            ConfigError: an unknown option.
            BuildError: ONNX Runtime cannot load the file.
        """
        from .audit import audit, kernels, weights_of

        chosen = _options(options)
        asked = chosen.model_dump(exclude={"tune"})
        settings = Settings(**asked, optimized=chosen.provider == "cpu")
        folder.mkdir(parents=True, exist_ok=True)
        providers = _optimize(model, folder, settings)
        tuned: list[dict[str, Any]] | None = None
        if chosen.tune:
            from .ort_tune import tune

            settings, timings = tune(folder, settings, profile.dims)
            tuned = [asdict(timing) for timing in timings]
        settings.save(folder)
        files = tuple(sorted(path.name for path in folder.iterdir() if path.is_file()))
        size = sum((folder / name).stat().st_size for name in files)
        engine = folder / settings.file
        facts = {
            "ort_version": onnxruntime().__version__,
            "providers": providers,
            **settings.model_dump(exclude={"schema_version", "file", "optimized"}),
            "tuned": tuned,
            "optimised": settings.optimized,
            "bytes": size,
            "audit": asdict(audit(model, weights_of(engine))),
            "kernels": kernels(engine),
            "executed": True,
        }
        return Built(files, facts)

    @contextmanager
    def runner(self, folder: Path) -> Generator[Run]:
        """Open the engine as it was built; a feed of other names or dtypes is a BuildError."""
        settings = Settings.load(folder)
        session = open_session(folder / settings.file, settings)
        names = [output.name for output in session.get_outputs()]

        def run(feed: Feed) -> dict[str, NDArray[np.generic]]:
            try:
                results: list[Any] = session.run(names, fitting(session, feed))
            except Exception as error:
                what = f"the engine failed: {' '.join(str(error).split())[:300]}"
                raise BuildError(what, where=folder) from error
            return dict(zip(names, results, strict=True))

        yield run


def _options(given: Mapping[str, object]) -> Options:
    try:
        return Options.model_validate({key.replace("-", "_"): given[key] for key in given})
    except ValidationError as error:
        raise ConfigError(
            misfit(error),
            where="[build.options.onnxruntime]",
            mend=f"it takes {', '.join(Options.model_fields)}",
        ) from error


def _optimize(model: Path, folder: Path, settings: Settings) -> list[str]:
    """Write ONNX Runtime's optimised form of `model`; the providers that ran."""
    first = settings.model_copy(update={"optimized": False})
    if settings.provider != "cpu":
        return _as_it_is(model, folder, settings)
    made = options(first, exact=False)
    made.optimized_model_filepath = str(folder / settings.file)
    entries = {
        "file_name": f"{settings.file}.data",
        "min_size_in_bytes": str(INLINE_BYTES),
    }
    for key, value in entries.items():
        made.add_session_config_entry(f"session.optimized_model_external_initializers_{key}", value)
    return list(open_session(model, first, made).get_providers())


def _as_it_is(model: Path, folder: Path, settings: Settings) -> list[str]:
    """Copy the graph and its weights: what a GPU provider compiles cannot be saved as ONNX."""
    from onnx import load
    from onnx.external_data_helper import ExternalDataInfo

    graph = load(str(model), load_external_data=False).graph
    places = {
        ExternalDataInfo(tensor).location for tensor in graph.initializer if tensor.external_data
    }
    for name in sorted(places):
        shutil.copyfile(model.parent / name, folder / name)
    shutil.copyfile(model, folder / settings.file)
    return list(open_session(folder / settings.file, settings).get_providers())
