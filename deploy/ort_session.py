"""An ONNX Runtime session opened as its engine was built: no second optimisation, no surprise.

Only numpy, pydantic and onnxruntime are imported, so that a device can use it.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .. import BuildError, MissingError
from .misfit import misfit

FILE = "engine.json"
CPU = "CPUExecutionProvider"
#: What engines with a cache take beside their inputs: int64 [1], of how many of the last places
#: logits are wanted, 0 (the default) for all.
KEEP = "logits_to_keep"
_WEIGHTS = "session.model_external_initializers_file_folder_path"
PROVIDERS = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


class Settings(BaseModel):
    """How a session runs. `threads` 0 means as many as there are cores.

    `optimized` says that the file was optimised when it was built: it is loaded as it is, and runs
    in its own order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    file: str = "model.onnx"
    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    threads: int = Field(default=0, ge=0)
    spinning: bool = True
    arena: bool = True
    prepacking: bool = True
    optimized: bool = False

    def save(self, folder: Path) -> None:
        """Write engine.json into `folder`."""
        text = self.model_dump_json(indent=2) + "\n"
        (folder / FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Settings":
        """Read `folder`'s engine.json; the defaults where there is none.

        Raises:
            BuildError: it does not fit the schema.
        """
        path = folder / FILE
        if not path.exists():
            return cls()
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            what = f"engine.json does not fit: {misfit(error)}"
            raise BuildError(what, where=path, mend="build the engine again") from error


def onnxruntime() -> Any:
    """The module, or MissingError with the mend."""
    try:
        import onnxruntime as module
    except ImportError as error:
        mend = "pip install 'llmdeploy[cpu]'"
        raise MissingError("onnxruntime is not installed", mend=mend) from error
    return module


def fitting(session: Any, feed: Mapping[str, Any]) -> dict[str, Any]:
    """A feed without `KEEP` where the engine can only give all logits."""
    known = {each.name for each in session.get_overridable_initializers()}
    return {name: value for name, value in feed.items() if name != KEEP or name in known}


def options(settings: Settings, *, exact: bool = True) -> Any:
    """SessionOptions for these settings.

    `exact` lets the runtime rewrite what another tool quantised, so that it is right on x86 without
    VNNI too. An engine of ours is right as it was built, and the same wherever that was.
    """
    ort = onnxruntime()
    made = ort.SessionOptions()
    made.intra_op_num_threads = settings.threads
    made.log_severity_level = 4
    made.enable_cpu_mem_arena = settings.arena
    entries = {
        "session.intra_op.allow_spinning": "1" if settings.spinning else "0",
        "session.disable_prepacking": "0" if settings.prepacking else "1",
        # a weight that the runtime finds to be quantised is no leave to round what it multiplies
        "session.qdq_matmulnbits_accuracy_level": "1",
        "session.x64quantprecision": "1" if exact and not settings.optimized else "0",
    }
    for key, value in entries.items():
        made.add_session_config_entry(key, value)
    if settings.optimized:  # in the file's order, where a product waits for the sum that reads it
        made.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    levels = ort.GraphOptimizationLevel
    made.graph_optimization_level = (
        levels.ORT_DISABLE_ALL if settings.optimized else levels.ORT_ENABLE_EXTENDED
    )
    return made


def open_session(
    model: Path, settings: Settings, made: Any = None, *, weights: Path | None = None
) -> Any:
    """An InferenceSession on the provider that the settings ask for.

    External data lies beside the model, or in `weights` where the caller vouches for it.

    Raises:
        MissingError: onnxruntime is not here, or the provider fell back to the CPU.
        BuildError: the file cannot be loaded.
    """
    ort = onnxruntime()
    asked = PROVIDERS[settings.provider]
    providers = list(dict.fromkeys([asked, CPU]))
    try:
        # A bias that is float in the graph stays so: as int32 in steps of both scales it is cut off
        # where one is of nothing but zeros.
        off = ["WeightBiasQuantization"]
        # On the CPU SkipLayerNormalization runs several times as long as the Add and the
        # LayerNormalization that it fuses.
        off += ["SkipLayerNormFusion"] if settings.provider == "cpu" else []
        chosen = made if made is not None else options(settings)
        content: str | bytes = str(model)
        if weights is not None:
            chosen.add_session_config_entry(_WEIGHTS, str(weights))
            content = model.read_bytes()
        with warnings.catch_warnings():  # an unknown provider warns here; below it is an error
            warnings.simplefilter("ignore", UserWarning)
            session = ort.InferenceSession(
                content, chosen, providers=providers, disabled_optimizers=off
            )
    except Exception as error:
        what = f"the engine cannot be loaded: {' '.join(str(error).split())[:300]}"
        mend = "build or unpack it again, for this onnxruntime"
        raise BuildError(what, where=model, mend=mend) from error
    running = session.get_providers()[0]
    if running != asked:
        raise MissingError(
            f"{asked} was asked for and {running} runs",
            where=model,
            mend="install onnxruntime-gpu with CUDA and cuDNN, or set provider = 'cpu'",
        )
    return session
