"""Two of four weights zero: by Polygraphy's own count, told to TensorRT, small in the archive."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import onnx
import pytest
from llmdeploy.deploy.archive import pack
from llmdeploy.deploy.trt import TensorRtRtx
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.choosing import options_of, two_of_four
from llmdeploy.toolchain.config import Build, Calibration, Config, Model, PassTable
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace

PLAIN = tuple(PassTable(use=name) for name in ("clean", "fold", "fuse", "clean"))


class Sparse(TensorRtRtx):
    """A backend that would take the flag, whatever the one that is installed refuses."""

    refuses: ClassVar[Mapping[str, str]] = {}


def run_of(
    checkpoint: Path, texts: Path, folder: Path, *tables: dict[str, Any], precision: Any = "fp32"
) -> Run:
    config = Config(
        model=Model(checkpoint=str(checkpoint)),
        passes=(*PLAIN, *(PassTable.model_validate(each) for each in tables)),
        calibration=Calibration(samples=str(texts), count=32, max_length=32, max_drop=0.9),
        build=Build(precision=precision),
    )
    run = Run(config, Workspace(folder / "a"))
    with run.workspace.locked():
        stages.slim(run)
    return run


def found_by_polygraphy(model: Path) -> set[str]:
    from polygraphy.tools.sparse import SparsityPruner

    pruner = SparsityPruner(onnx.load(model))
    pruner.check()
    return set(pruner.sparse_tensors)


def test_polygraphy_finds_the_pattern_and_tensorrt_is_told(
    tiny_bert: Path, some_texts: Path, tmp_path: Path
) -> None:
    run = run_of(tiny_bert, some_texts, tmp_path, {"use": "sparsify", "max_drop": 9})
    model = run.folder("compress") / "model.onnx"
    told = run.stages["compress"].results["sparse"]
    nodes = [node for node in onnx.load(model).graph.node if node.op_type in ("MatMul", "Gemm")]
    layers = {node.name: node.input[1] for node in nodes}
    assert told
    assert {layers[row["node"]] for row in told} <= found_by_polygraphy(model)
    assert not found_by_polygraphy(run.folder("optimize") / "model.onnx") & set(layers.values())
    assert two_of_four(run)
    assert options_of(run, "tensorrt-rtx", Sparse())["sparse-weights"] is True
    sizes = list[int]()
    for stage in ("optimize", "compress"):
        files = {"weights": run.folder(stage) / "model.onnx.data"}
        pack(files, tmp_path / f"{stage}.zst")
        sizes.append((tmp_path / f"{stage}.zst").stat().st_size)
    assert sizes[1] < 0.8 * sizes[0]  # embeddings are as they were


def test_the_pattern_is_left_by_int8(tiny_bert: Path, some_texts: Path, tmp_path: Path) -> None:
    """Rounding that makes up for itself leaves zeros alone."""
    run = run_of(
        tiny_bert, some_texts, tmp_path, {"use": "sparsify", "max_drop": 9}, precision="int8"
    )
    with run.workspace.locked():
        quantized = stages.quantize(run)
    model = onnx.load(run.folder(quantized.name) / "model.onnx")
    tables = {f"{each['tensor']}.int8" for each in quantized.results["tables"]}  # never sparse
    weights = [
        onnx.numpy_helper.to_array(each)
        for each in model.graph.initializer
        if each.data_type == onnx.TensorProto.INT8 and len(each.dims) == 2
        if each.name not in tables
    ]
    assert weights
    for weight in weights:  # [k, n] or [n, k], as the checkpoint has it
        fours = [
            (each.reshape(-1, 4, each.shape[1]) != 0).sum(axis=1) for each in (weight, weight.T)
        ]
        assert any((each <= 2).all() for each in fours)


@pytest.mark.parametrize(
    "tables",
    [
        ({"use": "sparsify", "pattern": "unstructured", "max_drop": 9},),
        ({"use": "sparsify", "max_drop": 9}, {"use": "low-rank", "multiple": 2, "max_drop": 9}),
    ],
    ids=["unstructured", "then low rank"],
)
def test_what_is_not_the_pattern_is_not_told(
    tables: tuple[dict[str, Any], ...], tiny_bert: Path, some_texts: Path, tmp_path: Path
) -> None:
    run = run_of(tiny_bert, some_texts, tmp_path, *tables)
    assert not two_of_four(run)
    assert "sparse-weights" not in options_of(run, "tensorrt-rtx", Sparse())
    assert json.dumps(run.stages["compress"].results["sparse"])
