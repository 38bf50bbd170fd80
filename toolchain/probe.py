"""Questions put to native libraries in a child process, so that a crash answers no and not for us.

`python -m llmdeploy.toolchain.probe QUESTION [ARGUMENT]` prints the answer as JSON.
"""

import ctypes
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

_SECONDS = 120
_COMPUTE_CAPABILITY = (75, 76)  # CUdevice_attribute: major, minor


def ask(question: str, *argument: str) -> dict[str, Any]:
    """Ask a child process; its answer, or `{"error": why}` when it crashed or hung."""
    command = [sys.executable, "-P", "-m", __name__, question, *argument]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer in {_SECONDS} s"}
    if done.returncode:
        return {"error": f"the process ended with {done.returncode}: {_last(done.stderr)}"}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"error": "the process gave no answer"}


def _last(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no message")


def listed() -> dict[str, Any]:
    """The providers ONNX Runtime claims to have, and its version."""
    import onnxruntime as ort

    return {"version": ort.__version__, "providers": ort.get_available_providers()}


def provider(name: str) -> dict[str, Any]:
    """Whether a provider itself computes 1 + 1: with the fallback to the CPU closed."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    if name != "CPUExecutionProvider":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(_one_node(), options, providers=[name])
        result = session.run(None, {"x": np.ones(2, np.float32)})[0]
    except Exception as error:
        return {"works": False, "reason": _plainly(str(error))}
    if name not in session.get_providers():
        return {"works": False, "reason": f"the session has {session.get_providers()}"}
    right = bool(np.array_equal(np.asarray(result), np.full(2, 2, np.float32)))
    return {"works": right, "reason": None if right else f"1 + 1 gave {result}"}


def products() -> dict[str, Any]:
    """Whether ONNX Runtime sums products of uint8 and int8 exactly on this processor.

    x86 without a dot product of bytes adds two of them in 16 bits, and cuts off what is more.
    """
    import numpy as np
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    size = 64
    weight = numpy_helper.from_array(np.full((size, 1), 127, np.int8), "w")
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, size])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [1, 1])
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    model = _model(helper.make_graph([node], "probe", [x], [y], [weight]))
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {"x": np.full((1, size), 255, np.uint8)})
    return {"exact": int(np.asarray(made).item()) == size * 255 * 127}


def _plainly(message: str) -> str:
    fell = "disable_cpu_ep_fallback" in message or "assigned to the default CPU EP" in message
    return "it takes no node: all of them fall to the CPU" if fell else message


def _one_node() -> bytes:
    from onnx import TensorProto, helper

    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    node = helper.make_node("Add", ["x", "x"], ["y"])
    return _model(helper.make_graph([node], "probe", tensors[:1], tensors[1:]))


def _model(graph: Any) -> bytes:
    from onnx import helper

    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def tensorrt(module: str) -> dict[str, Any]:
    """Whether a TensorRT module imports, and whether it gives a builder here."""
    try:
        trt = importlib.import_module(module)
    except (ImportError, OSError) as error:
        return {"version": None, "builder": False, "reason": str(error)}
    try:
        builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    except Exception as error:
        return {"version": trt.__version__, "builder": False, "reason": str(error)}
    reason = None if builder else "it gives no builder without a GPU"
    return {"version": trt.__version__, "builder": bool(builder), "reason": reason}


def gpus() -> dict[str, Any]:
    """The devices the CUDA driver shows, through its own library and nothing else."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return {"cuda": None, "devices": [], "reason": f"no NVIDIA driver: {library} is not found"}
    status = cuda.cuInit(0)
    if status:
        return {"cuda": None, "devices": [], "reason": f"cuInit gave the CUDA error {status}"}
    count, version = ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    cuda.cuDriverGetVersion(ctypes.byref(version))
    devices = [_device(cuda, index) for index in range(count.value)]
    major, minor = version.value // 1000, version.value % 1000 // 10
    reason = None if devices else "the driver shows no device"
    return {"cuda": f"{major}.{minor}", "devices": devices, "reason": reason}


def _device(cuda: ctypes.CDLL, index: int) -> dict[str, Any]:
    name, memory, handle = ctypes.create_string_buffer(256), ctypes.c_size_t(), ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(handle), index)
    cuda.cuDeviceGetName(name, len(name), handle)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    parts: list[int] = []
    for attribute in _COMPUTE_CAPABILITY:
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
        parts.append(value.value)
    capability = ".".join(map(str, parts))
    text = name.value.decode(errors="replace")
    return {"name": text, "memory_bytes": memory.value, "compute_capability": capability}


def backend(name: str) -> dict[str, Any]:
    """What stops a backend of ours or of a third party building here, and executing here."""
    from . import registry

    try:
        found = registry.find("backends", name)()
        return {"cannot_build": found.missing(), "cannot_execute": found.unexecutable()}
    except Exception as error:
        return {"error": str(error)}


QUESTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function
    for function in (listed, provider, products, tensorrt, gpus, backend)
}

if __name__ == "__main__":
    print(json.dumps(QUESTIONS[sys.argv[1]](*sys.argv[2:])))
