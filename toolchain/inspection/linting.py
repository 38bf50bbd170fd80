"""`llmdeploy inspect --target`: what a target would refuse, or silently compute otherwise."""

from pathlib import Path

from ... import ConfigError
from ...deploy.trt_lint import Finding, lint

#: Targets whose parser's hazards are known.
TARGETS = ("tensorrt", "tensorrt-rtx")


def findings(path: Path, target: str) -> list[Finding]:
    """Everything in the ONNX file at `path`, or in a stage's, that the target does not take.

    Raises:
        ConfigError: the target is not known, or there is no ONNX model.
        BuildError: the file is no ONNX model.
    """
    if target not in TARGETS:
        raise ConfigError(
            f"nothing is known of the target {target!r}", mend=f"one of {', '.join(TARGETS)}"
        )
    model = path / "model.onnx" if path.is_dir() else path
    if not model.is_file() or model.suffix != ".onnx":
        raise ConfigError("no ONNX model", where=path, mend="give an .onnx file or its folder")
    return lint(model, rtx=target == "tensorrt-rtx")
