"""Versions of what a result depends on, read from installed metadata without an import."""

from importlib.metadata import PackageNotFoundError, version

from .. import __version__

GRAPH = ("onnx", "onnx-ir", "onnxscript", "numpy")
EXPORT = ("torch", "transformers", *GRAPH)
RUNTIME = ("onnxruntime", "onnxruntime-gpu", "numpy")
ENGINE = ("tensorrt", "tensorrt-rtx", "polygraphy", *RUNTIME, "onnx", "onnx-ir")


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Our own version and those of the packages that are installed."""
    found = {"llmdeploy": __version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
