"""ONNX Runtime's own weight-only quantiser on the same graph: int4, blocks of 32."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx

Peer = Callable[[Path, Path], Path]


def heads(model: onnx.ModelProto) -> list[str]:
    """MatMuls that give an output of the graph: ours leaves them in float, so theirs is told to."""
    outputs = {each.name for each in model.graph.output}
    return [node.name for node in model.graph.node if outputs.intersection(node.output)]


def quantized(config: Callable[[], Any] | None, *, symmetric: bool = True) -> Peer:
    def make(source: Path, target: Path) -> Path:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        logging.getLogger("onnxruntime.quantization").setLevel(logging.WARNING)  # a line a node
        model = onnx.load(source)
        settings = {"algo_config": config()} if config else {}
        quantizer = MatMulNBitsQuantizer(
            model,
            block_size=32,
            is_symmetric=symmetric,
            accuracy_level=4,
            nodes_to_exclude=heads(model),
            **settings,
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(target), use_external_data_format=True)
        return target

    return make


def _hqq() -> Any:
    from onnxruntime.quantization.matmul_nbits_quantizer import HQQWeightOnlyQuantConfig

    return HQQWeightOnlyQuantConfig(block_size=32, bits=4)


PEERS: Mapping[str, Peer] = {
    "onnxruntime int4 rtn": quantized(None, symmetric=False),
    "onnxruntime int4 rtn, symmetric": quantized(None),
    "onnxruntime int4 hqq": quantized(_hqq),
}
