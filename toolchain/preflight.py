"""What can be known to be wrong is said before an hour of work, not after it."""

from .. import ConfigError
from . import registry
from .choosing import backend_of, divided, make_pass
from .config import CALIBRATED, WEIGHT_ONLY, Config
from .feeds import read
from .run import Run
from .sampled import samples_digest
from .token_tables import rounds_tables


def preflight(run: Run) -> None:
    """Look at everything the configuration names.

    Raises:
        ConfigError: a backend, pass, metric, packager or file that does not exist, a precision
            that nothing builds, a vocabulary that cannot be int8, INT8, an int8 cache or a fitted
            pass without samples.
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
    if config.evaluation.metric:
        _evaluation(run)
    for kind in config.bundle.kinds:
        registry.find("packagers", kind)


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


def needs_samples(config: Config) -> bool:
    """Whether what is asked for is made from calibration samples."""
    precision, method = config.build.precision, config.quantize.method
    fitted = bool(divided(config.passes)[1])
    weights = precision in WEIGHT_ONLY and method in ("gptq", "awq")
    cache = config.quantize.cache == "int8"
    return fitted or precision in CALIBRATED or weights or cache


def _evaluation(run: Run) -> None:
    table = run.config.evaluation
    registry.find("metrics", table.metric)
    for key, text in (("samples", table.samples), ("labels", table.labels)):
        if (text or key == "samples") and not run.config.path(text).is_file():
            raise ConfigError(
                f"no evaluation {key} {text!r}",
                where=f"[evaluation] {key}",
                mend="name a file that exists",
            )
