"""Run Python over the real TensorRT bindings and three libraries that hold names and no code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

LIBRARIES = {
    "libnvinfer.so.11": (
        "createInferBuilder_INTERNAL",
        "createInferRuntime_INTERNAL",
        "createInferRefitter_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
    ),
    "libnvinfer_plugin.so.11": ("initLibNvInferPlugins",),
    "libnvonnxparser.so.11": (
        "createNvOnnxParser_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "getNvOnnxParserVersion",
    ),
}


def make(folder: Path) -> Path:
    """Compile the three libraries; each name gives NULL."""
    compiler = shutil.which("cc")
    assert compiler is not None
    for library, names in LIBRARIES.items():
        source = folder / f"{library}.c"
        source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in names))
        output = folder / library
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", output, source]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def run(script: str, libraries: Path) -> str:
    """What a script prints in a process where `tensorrt` is the real 11.4 bindings."""
    start = "import sys, tensorrt_bindings\nsys.modules['tensorrt'] = tensorrt_bindings\n"
    done = subprocess.run(
        [sys.executable, "-c", start + script],
        env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
