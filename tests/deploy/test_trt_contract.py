"""Our calls of full TensorRT, held against the real 11.4 bindings: names and enums, no more."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from . import stubs

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_bindings") is None,
        reason="the bindings are not installed: pip install --no-deps tensorrt_cu13_bindings",
    ),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
]

# Mocks that know only what the real classes have: any other name is an AttributeError.
CONFIG = """
import json
from unittest.mock import MagicMock
import tensorrt as trt
from polygraphy.backend import trt as loaders
from importlib import metadata
from llmdeploy.deploy.trt_options import Options, arguments
from llmdeploy.deploy.trt_worker import config

asked = {
    "workspace_mb": 512, "optimization_level": 4, "sparse_weights": True, "weight_streaming": True,
    "refit": True, "strip_plan": True, "version_compatible": True,
    "hardware_compatibility": "ampere-plus", "tf32": TF32, "timing_cache": "FOLDER/caches",
}
metadata.version = {"tensorrt": trt.__version__}.get
spec = {"module": "tensorrt", "profiles": [], "config": arguments(Options(**asked), "tensorrt")}
made = MagicMock(spec=trt.IBuilderConfig)
builder = MagicMock(spec=trt.Builder)
builder.create_builder_config.return_value = made
network = MagicMock(spec=trt.INetworkDefinition)
network.num_inputs = 0
network.__getitem__.side_effect = IndexError
config(loaders, spec)(builder, network)
print(json.dumps({
    "set": sorted(call.args[0].name for call in made.set_flag.call_args_list),
    "cleared": sorted(call.args[0].name for call in made.clear_flag.call_args_list),
    "pools": [[call.args[0].name, call.args[1]] for call in made.set_memory_pool_limit.call_args_list],
    "level": made.builder_optimization_level,
    "cache": spec["config"]["load_timing_cache"],
    "compatibility": made.hardware_compatibility_level.name,
    "version": trt.__version__,
}))
"""

FLAGS = [
    "EDITABLE_TIMING_CACHE",
    "REFIT",
    "SPARSE_WEIGHTS",
    "STRIP_PLAN",
    "VERSION_COMPATIBLE",
    "WEIGHT_STREAMING",
]


@pytest.mark.parametrize("tf32", [False, True])
def test_every_option_reaches_the_builder_s_configuration(tmp_path: Path, tf32: bool) -> None:
    script = CONFIG.replace('"tf32": TF32', f'"tf32": {tf32}').replace("FOLDER", str(tmp_path))
    printed = stubs.run(script, stubs.make(tmp_path))
    found = json.loads(printed.splitlines()[-1])
    assert found["version"].startswith("11.4")
    assert found["set"] == sorted([*FLAGS, "TF32"] if tf32 else FLAGS)
    assert found["cleared"] == ([] if tf32 else ["TF32"])
    assert found["pools"] == [["WORKSPACE", 512 * 2**20]]
    assert found["cache"].endswith(f"caches/no-gpu-{found['version']}.cache")
    assert (found["level"], found["compatibility"]) == (4, "AMPERE_PLUS")


RUNNER = """
from contextlib import ExitStack
from unittest.mock import MagicMock
import numpy as np
import tensorrt as trt
from polygraphy import cuda
from llmdeploy.deploy.trt_runner import _Session

trt.nptype = {trt.DataType.FLOAT: np.float32}.get  # of the wrapper package around the bindings
cuda.Stream, cuda.DeviceArray = MagicMock(), MagicMock()
engine = MagicMock(spec=trt.ICudaEngine)
engine.num_io_tensors, engine.num_optimization_profiles = 2, 2
engine.get_tensor_name.side_effect = ["x", "y"].__getitem__
engine.get_tensor_mode.side_effect = {"x": trt.TensorIOMode.INPUT, "y": trt.TensorIOMode.OUTPUT}.get
engine.get_tensor_dtype.return_value = trt.DataType.FLOAT
engine.get_tensor_profile_shape.side_effect = lambda name, index: [
    [(1, 1), (1, 32), (4, 64)], [(1, 1), (1, 8), (4, 24)]
][index]
context = MagicMock(spec=trt.IExecutionContext)
context.get_tensor_shape.return_value = (2, 20)
with ExitStack() as stack:
    session = _Session(trt, engine, context, stack)
    out = session.run({"x": np.ones((2, 20), np.float32)})
    print(out["y"].shape, session._profile, context.set_optimization_profile_async.call_args.args[0])
    session.run({"x": np.ones((2, 30), np.float32)})
    print(session._profile)
    try:
        session.run({"x": np.ones((2, 99), np.float32)})
    except Exception as error:
        print(error)
"""


def test_a_run_uses_names_that_exist_and_the_tightest_profile(tmp_path: Path) -> None:
    first, wider, second = stubs.run(RUNNER, stubs.make(tmp_path)).splitlines()
    assert (first, wider) == ("(2, 20) 1 1", "0")
    assert second == "no profile holds x (2, 99), widen [build.profile] and build again"


NAMES = """
import tensorrt as trt
wanted = {
    trt.Builder: ["create_network", "create_builder_config", "create_optimization_profile", "build_serialized_network"],
    trt.OnnxParser: ["parse_from_file", "num_errors", "get_error"],
    trt.INetworkDefinition: ["num_layers", "num_inputs"],
    trt.Runtime: ["deserialize_cuda_engine"],
    trt.ICudaEngine: ["create_execution_context", "create_engine_inspector"],
    trt.EngineInspector: ["get_engine_information"],
    trt.LayerInformationFormat: ["JSON"],
    trt.ILogger: ["log"],
}
print([f"{cls.__name__}.{name}" for cls, names in wanted.items() for name in names if not hasattr(cls, name)])
print([flag for flag in ("FP16", "INT8", "BF16") if hasattr(trt.BuilderFlag, flag)])
"""


def test_what_a_build_needs_is_there_and_precision_flags_are_not(tmp_path: Path) -> None:
    lacking, flags = stubs.run(NAMES, stubs.make(tmp_path)).splitlines()
    assert (lacking, flags) == ("[]", "[]")
