from pathlib import Path

import numpy as np
import onnx_ir as ir
from llmdeploy.deploy.backend import Profile
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.deploy.ort_session import Settings, open_session
from llmdeploy.deploy.polygraphy_runner import EngineRunner
from llmdeploy.deploy.signature import Signature, Tensor

from .test_ort_int8 import feed, matmul

SIGNATURE = Signature(
    task="test",
    inputs=(Tensor(name="x", dtype="float32", shape=("N", "S", 24), role="x"),),
    outputs=(Tensor(name="y", dtype="float32", shape=("N", "S", 40), role="y"),),
)


def test_an_engine_and_polygraphy_s_own_runner_agree(tmp_path: Path) -> None:
    from polygraphy.backend.onnxrt import OnnxrtRunner
    from polygraphy.comparator import Comparator, SimpleCompareFunc
    from polygraphy.logger import G_LOGGER

    backend, path = OnnxRuntime(), tmp_path / "model.onnx"
    ir.save(matmul(), path)
    model = matmul()
    for each in backend.lowering("int8"):
        each(model)
    ir.save(model, tmp_path / "lowered.onnx")
    backend.build(tmp_path / "lowered.onnx", tmp_path / "engine", Profile(), {})
    ours = EngineRunner(backend.runner(tmp_path / "engine"), SIGNATURE, "ours")
    theirs = OnnxrtRunner(lambda: open_session(path, Settings()))
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        runs = Comparator.run([ours, theirs], data_loader=[feed()])
        close = SimpleCompareFunc(atol=1e-4, rtol=0.0, check_error_stat="max")
        assert bool(Comparator.compare_accuracy(runs, compare_func=close))
        metadata = runs[0][1][0]
    assert list(metadata) == ["y"]
    assert not ours.is_active


def test_polygraphy_makes_inputs_from_the_signature(tmp_path: Path) -> None:
    backend = OnnxRuntime()
    ir.save(matmul(), tmp_path / "model.onnx")
    backend.build(tmp_path / "model.onnx", tmp_path / "engine", Profile(), {})
    with EngineRunner(backend.runner(tmp_path / "engine"), SIGNATURE, "ours") as runner:
        metadata = runner.get_input_metadata(use_numpy_dtypes=False)
        assert list(metadata) == ["x"]
        outputs = runner.infer({"x": np.ones((2, 3, 24), np.float32)})
    assert outputs["y"].shape == (2, 3, 40)
