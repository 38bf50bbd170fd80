"""What can be known to be wrong is said before an hour of work, not after it."""

from pydantic import TypeAdapter, ValidationError

from .. import ConfigError
from ..deploy.contents import stated_date
from . import allowing, registry
from .choosing import backend_of, divided, make_pass
from .config import CALIBRATED, WEIGHT_ONLY, Config
from .feeds import read
from .run import Run
from .sampled import samples_digest
from .token_tables import rounds_tables
from .widened import of_bfloat16


def preflight(run: Run) -> None:
    """Look at everything the configuration names.

    Raises:
        ConfigError: a backend, pass, metric, packager, gate or file that does not exist, a
            precision that nothing builds, a vocabulary that cannot be int8, INT8, an int8 cache or
            a fitted pass without samples, a version unfit for a bundle, a SOURCE_DATE_EPOCH that
            is no date.
        MissingError: a backend that cannot build on this machine.
    """
    config = run.config
    if not config.build.backends:
        raise ConfigError("no backend is named", where="[build] backends", mend="name onnxruntime")
    for name in config.build.backends:
        backend_of(name, config.build.precision)
    rounds_tables(run)
    for table in config.passes:
        make_pass(table)
    can_calibrate(run)
    if config.evaluation.metric or config.evaluation.samples:
        _evaluation(run)
    for kind in config.bundle.kinds:
        registry.find("packagers", kind)
    _named(config)
    allowing.check(config.gate.allow_unexecuted, "[gate] allow-unexecuted")
    _version(config.bundle.version)
    stated_date()


def _named(config: Config) -> None:
    """Options are of backends and packagers that are offered; not all of them are asked for."""
    tables = (("backends", "build", config.build), ("packagers", "bundle", config.bundle))
    for kind, section, table in tables:
        offered = registry.names(kind)
        lost = [name for name in table.options if name not in offered]
        if lost:
            raise ConfigError(
                f"nothing in {kind} is called {lost[0]!r}",
                where=f"[{section}.options.{lost[0]}]",
                mend=f"one of {', '.join(offered)}",
            )


def _version(version: str) -> None:
    from ..deploy.bundle import Label

    try:
        TypeAdapter(Label).validate_python(version)
    except ValidationError as error:
        raise ConfigError(
            f"{version!r} is no version of a bundle",
            where="[bundle] version",
            mend="letters, digits and . _ + - alone, 80 at most",
        ) from error


def can_calibrate(run: Run) -> None:
    """Look at the method and the samples.

    Raises:
        ConfigError: no such method, or samples that are needed or named and not there.
    """
    config = run.config
    if config.calibration.method != "auto":
        registry.find("observers", config.calibration.method)
    if needs_samples(config) or config.calibration.samples:
        samples_digest(run)
        read(run)


def suits(run: Run, *, calibrating: bool = False) -> None:
    """Hold the dtype of what was exported against what is to be made of it, before all the work.

    Raises:
        ConfigError: it is bfloat16, and something of it has to be computed on this CPU.
    """
    config, mend = run.config, "export with --dtype float32"
    precision, backends = config.build.precision, config.build.backends
    if not any(of_bfloat16(run.folder("export", graph) / "model.onnx") for graph in run.graphs):
        return
    where = "[model] dtype"
    for name in () if calibrating else backends:
        if "bf16" not in registry.find("backends", name).precisions:
            what = f"{name} computes no bfloat16, of which the export is"
            raise ConfigError(what, where=where, mend=mend)
    if calibrating or precision != "fp32" or needs_samples(config):
        what = "ONNX Runtime's CPU, which measures what is rounded, computes no bfloat16"
        raise ConfigError(f"{what}, of which the export is", where=where, mend=mend)


def needs_samples(config: Config) -> bool:
    """Whether what is asked for is made from calibration samples."""
    precision, method = config.build.precision, config.quantize.method
    fitted = bool(divided(config.passes)[1])
    weights = precision in WEIGHT_ONLY and method in ("gptq", "awq")
    cache = config.quantize.cache == "int8"
    return fitted or precision in CALIBRATED or weights or cache


def _evaluation(run: Run) -> None:
    table = run.config.evaluation
    if table.metric:
        registry.find("metrics", table.metric)
    for key, text in (("samples", table.samples), ("labels", table.labels)):
        if (text or key == "samples") and not run.config.path(text).is_file():
            raise ConfigError(
                f"no evaluation {key} {text!r}",
                where=f"[evaluation] {key}",
                mend="name a file that exists",
            )
