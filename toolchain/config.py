"""llmdeploy.toml as frozen records: one class a section, unknown keys refused."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from .. import ConfigError
from ..deploy.misfit import is_unknown, misfit
from .paths import resolve

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8", "w8a16", "w8", "int4"]
#: Precisions of the weights alone.
WEIGHT_ONLY = ("w8", "int4")
#: Those that round activations too, by ranges from samples.
CALIBRATED = ("int8", "fp8", "w8a16")
FILE = "llmdeploy.toml"


#: Names, each of which is asked for once however often it stands there.
Once = Annotated[tuple[str, ...], AfterValidator(lambda names: tuple(dict.fromkeys(names)))]


class Section(BaseModel):
    """A table of llmdeploy.toml: frozen, unknown keys refused, kebab-case in the file."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,  # a limit that everything meets is none
        validate_by_name=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )


class Model(Section):
    """Which checkpoint, and what of it is exported."""

    checkpoint: str = ""
    revision: str | None = None
    task: str = "auto"
    opset: int = Field(default=20, ge=18, le=25)
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "float32"
    weights: Literal["copy", "reference", "in-place"] = "copy"
    max_batch: int | None = Field(default=None, ge=1)
    max_sequence: int | None = Field(default=None, ge=1)
    trust_remote_code: bool = False


class PassTable(BaseModel):
    """A `[[passes]]` table: the pass's name in `use`, the rest its own options."""

    model_config = ConfigDict(frozen=True, extra="allow")

    use: str

    @property
    def options(self) -> dict[str, object]:
        """The pass's own fields, as written."""
        return {key.replace("-", "_"): value for key, value in (self.model_extra or {}).items()}


class Optimize(Section):
    """What becomes of a rewrite that changes the numbers: the run stops, or it is taken back."""

    on_failure: Literal["stop", "roll-back"] = "stop"


class Samples(Section):
    """Where texts or ready feeds come from, and how many are taken."""

    samples: str = ""
    field: str | None = None
    encoding: str = "utf-8"
    count: int = Field(default=256, ge=1)
    max_length: int = Field(default=128, ge=1)
    batch: int = Field(default=8, ge=1)
    seed: int = Field(default=0, ge=0)


class Calibration(Samples):
    """Samples to calibrate on, and how ranges are chosen."""

    method: str = "auto"
    preset: Literal["accuracy", "balanced", "speed"] = "balanced"
    max_drop: float = Field(default=0.01, gt=0, lt=1)
    pairs: Literal["auto", True, False] = "auto"
    keep: tuple[str, ...] = ()


class Quantize(Section):
    """How weights are rounded where they alone are in few bits; what tables and caches become."""

    method: Literal["auto", "rtn", "gptq", "awq"] = "auto"
    block: Literal["auto", "output", 32, 64, 128] = "auto"
    zero_points: Literal["auto", True, False] = "auto"
    act_order: bool = True
    damping: float = Field(default=0.01, gt=0, lt=1)
    head: bool = False
    vocabulary: Literal["auto", "float", "int8"] = "auto"
    cache: Literal["float", "int8"] = "float"


class Build(Section):
    """Precision, backends, and the shapes the engines are built for."""

    precision: Precision = "fp32"
    backends: Once = ("onnxruntime",)
    profile: dict[str, tuple[int, int, int]] = {}
    options: dict[str, dict[str, object]] = {}

    @field_validator("profile")
    @classmethod
    def _ordered(cls, profile: dict[str, tuple[int, int, int]]) -> dict[str, tuple[int, int, int]]:
        for name, (low, opt, high) in profile.items():
            if not 0 <= low <= opt <= high:
                raise ValueError(f"{name} = [{low}, {opt}, {high}] is not [min, opt, max] in order")
        return profile


class Evaluation(Section):
    """Labelled data, never calibrated on, and the metric it is scored by."""

    metric: str = ""
    samples: str = ""
    labels: str = ""
    encoding: str = "utf-8"
    max_length: int = Field(default=256, ge=1)
    batch: int = Field(default=8, ge=1)
    max_new_tokens: int = Field(default=64, ge=1)


class Tune(Section):
    """Labelled data that `llmdeploy tune` scores its trials on, by the metric of `[evaluation]`."""

    samples: str = ""
    labels: str = ""
    encoding: str = "utf-8"


class Gate(Section):
    """What must hold before a release ships; a limit left out is not asked for."""

    min_cosine: float | None = Field(default=None, ge=-1)
    max_relative_error: float | None = Field(default=None, ge=0)
    max_score_drop: float | None = Field(default=None, ge=0)
    min_int8_share: float | None = Field(default=None, ge=0)
    min_speedup: float | None = Field(default=None, ge=0)
    max_latency_ms: float | None = Field(default=None, gt=0)
    max_size_mb: float | None = Field(default=None, gt=0)
    max_memory_mb: float | None = Field(default=None, gt=0)
    last_release: str = ""
    max_slowdown: float | None = Field(default=None, ge=0)
    allow_unexecuted: tuple[str, ...] = ()


class Bundle(Section):
    """What is packed, under which name and version."""

    kinds: Once = ("edge",)
    name: str = ""
    version: str = "0.1.0"
    python: str | None = None
    sign: str = ""
    certificate: str = ""
    chain: tuple[str, ...] = ()
    options: dict[str, dict[str, object]] = {}


class Config(Section):
    """The whole of llmdeploy.toml; relative paths in it are relative to its folder."""

    model: Model = Model()
    passes: tuple[PassTable, ...] = (
        PassTable(use="clean"),
        PassTable(use="fold"),
        PassTable(use="fuse"),
        PassTable(use="clean"),
    )
    optimize: Optimize = Optimize()
    calibration: Calibration = Calibration()
    quantize: Quantize = Quantize()
    build: Build = Build()
    evaluation: Evaluation = Evaluation()
    tune: Tune = Tune()
    gate: Gate = Gate()
    bundle: Bundle = Bundle()
    folder: Path = Field(default=Path(), exclude=True)

    def path(self, text: str) -> Path:
        """Where a path in the file lies; `package:NAME/inner` is inside an installed package."""
        return resolve(text, self.folder)


def load(path: Path) -> Config:
    """Read llmdeploy.toml.

    Raises:
        ConfigError: no such file, not TOML, an unknown key or a value of the wrong kind.
    """
    if not path.is_file():
        raise ConfigError(
            f"no configuration at {path}", mend="run `llmdeploy init MODEL` or pass --config FILE"
        )
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("the configuration is not TOML", where=path, mend=str(error)) from error
    if "folder" in tables:
        raise ConfigError("unknown key folder", where=path, mend="remove it")
    try:
        return Config.model_validate({**tables, "folder": path.parent})
    except ValidationError as error:
        raise ConfigError(misfit(error), where=path, mend=_mend(error)) from error


def _mend(error: ValidationError) -> str:
    if is_unknown(error):
        return "correct or remove it; `llmdeploy init` writes every key with its meaning"
    return "correct its value"
