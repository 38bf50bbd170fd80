"""An engine's file cut into pipeline stages, each a folder that opens as the engine does."""

from collections.abc import Sequence
from pathlib import Path

from .. import ConfigError, MissingError
from ..deploy.ort_session import Settings
from ..deploy.serving.limits import Limits


def cut(model: Path, count: int, folder: Path) -> Sequence[Path]:
    """Write `count` stages of an ONNX Runtime engine below `folder`: in order they give its bits.

    An engine that ONNX Runtime would optimise when it is opened is optimised first, as a whole.

    Raises:
        ConfigError: the file is no ONNX, or there are not so many places to cut.
    """
    from ..passes import load, save
    from ..passes.split import split

    if model.suffix != ".onnx":
        raise ConfigError("only .onnx engines are cut", where=model, mend="build it again")
    settings = Settings.load(model.parent)
    if not settings.optimized:
        model, settings = _optimized(model, folder / "whole")
    written: list[Path] = []
    for stage in split(load(model), count):
        target = folder / str(stage.index)
        target.mkdir()
        save(stage.model, target)
        settings.model_copy(update={"file": "model.onnx"}).save(target)
        written.append(target)
    return written


def _optimized(model: Path, folder: Path) -> tuple[Path, Settings]:
    from ..deploy.backend import Profile
    from ..deploy.ort import OnnxRuntime

    OnnxRuntime().build(model, folder, Profile(), {})
    return folder / "model.onnx", Settings.load(folder)


def spread(
    path: Path,
    host: str,
    port: int,
    limits: Limits,
    scale: tuple[int, int, int],
    address: str | None,
) -> None:
    """Serve on Ray with `scale` (replicas, stages, threads) until told to stop.

    Raises:
        MissingError: the packages of `ray` are not installed.
        ConfigError: nothing at `path` can be run, or it cannot be cut into so many stages.
        BundleError: it cannot be read, or its replicas do not start.
    """
    try:
        from ..deploy.cluster.serve import Scale, run
    except ImportError as error:
        mend = "pip install 'llmdeploy[ray]'"
        raise MissingError(f"{error.name} is not installed", mend=mend) from error
    run(
        path,
        host=host,
        port=port,
        limits=limits,
        scale=Scale(*scale),
        cut=cut,
        address=address,
    )
