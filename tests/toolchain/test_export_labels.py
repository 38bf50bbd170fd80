"""What io.json calls the classes of a model."""

import onnx_ir as ir
import pytest
import torch
from llmdeploy.toolchain.exporter.components import Component
from llmdeploy.toolchain.exporter.finish import signature
from llmdeploy.toolchain.exporter.task import Target
from transformers import BertConfig


@pytest.mark.parametrize(
    ("ids", "labels"),
    [
        (sorted(map(str, range(12))), tuple(f"class {index}" for index in range(12))),
        (["2", "0", "1"], ("class 0", "class 1", "class 2")),
        (["0", "1", "3"], ()),
    ],
)
def test_classes_are_named_by_their_ids(ids: list[str], labels: tuple[str, ...]) -> None:
    config = BertConfig.from_dict({"id2label": {index: f"class {index}" for index in ids}})
    component = Component("", torch.nn.Identity(), {}, {}, {})
    target = Target("text-classification", torch.nn.Identity)
    assert signature(ir.Graph([], [], nodes=[]), target, component, config).labels == labels
