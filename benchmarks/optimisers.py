"""What each optimiser makes of one ONNX file, and what is left of it."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

PEERS = ("onnxslim", "onnxsim", "onnxscript", "onnxruntime")


def optimised(
    method: str, source: Path, target: Path, peers: str | None, limit: float
) -> dict[str, Any]:
    """Run one optimiser in a process of its own; its figures, or why there are none."""
    target.parent.mkdir(parents=True)
    python = peers if method in PEERS else sys.executable
    if python is None:
        return {"reason": "no --peers"}
    script = Path(__file__).with_name("simplify.py")
    command = [python, str(script), method, str(source), str(target)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"reason": f"stopped after {limit:g} s"}
    if done.returncode or not target.is_file():
        lines = done.stderr.strip().splitlines() or [f"no output, exit {done.returncode}"]
        return {"reason": f"failed: {lines[-1][:160]}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def lowered(source: Path, target: Path) -> dict[str, Any]:
    """Our graph as our own ONNX Runtime backend lowers it."""
    from llmdeploy.deploy.ort import OnnxRuntime
    from llmdeploy.passes import PassManager, load
    from llmdeploy.passes import save as write

    started = time.perf_counter()
    model, _ = PassManager(OnnxRuntime().lowering("fp32"), prove=False).run(load(source))
    target.parent.mkdir()
    write(model, target.parent)
    return {"seconds": round(time.perf_counter() - started, 3), "peak_memory_bytes": None}


def engine(source: Path, target: Path) -> dict[str, Any]:
    """The lowered graph as our backend builds it."""
    from llmdeploy.deploy.backend import Profile
    from llmdeploy.deploy.ort import OnnxRuntime

    started = time.perf_counter()
    OnnxRuntime().build(source, target.parent, Profile(), {"threads": 1})
    return {"seconds": round(time.perf_counter() - started, 3), "peak_memory_bytes": None}


def session(method: str, path: Path) -> ort.InferenceSession:
    """A session as a user opens it: an engine as it was built, else all that ONNX Runtime does."""
    if method == "engine":
        from llmdeploy.deploy.ort_session import Settings, open_session

        return open_session(path, Settings.load(path.parent))
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def nodes(path: Path) -> int:
    """Nodes of a file, constants aside."""
    model = onnx.load(path, load_external_data=False)
    return sum(node.op_type != "Constant" for node in model.graph.node)


def kernels(method: str, path: Path) -> int:
    """Nodes that ONNX Runtime is left with after all of its own optimisations."""
    if method == "engine":
        return nodes(path)
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return nodes(Path(folder) / "model.onnx")
