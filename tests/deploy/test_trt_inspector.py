"""Fixtures written by hand after the documentation: no engine can be inspected without a GPU."""

import json

import pytest
from llmdeploy import BuildError
from llmdeploy.deploy.trt_inspector import inspect


def report(*layers: tuple[str, list[dict[str, str]]]) -> str:
    return json.dumps({"Layers": [{"Name": name, "Inputs": inputs} for name, inputs in layers]})


def test_layers_by_the_narrowest_dtype_they_read() -> None:
    text = report(
        ("qkv", [{"Name": "x", "DataType": "Int8"}, {"Name": "b", "DataType": "Float"}]),
        ("norm", [{"Name": "x", "DataType": "Float"}]),
        ("shape", []),
        ("half", [{"Name": "x", "DataType": "BFloat16"}]),
    )
    found = inspect(text)
    assert found.layers == 4
    assert found.kinds == {"INT8": 1, "FP32": 1, "none": 1, "BF16": 1}
    assert found.quantized == ("qkv",)


def test_the_spelling_of_tensorrt_10() -> None:
    text = report(("gemm", [{"Name": "x", "Format/Datatype": "Row major Int8 format"}]))
    assert inspect(text).quantized == ("gemm",)


@pytest.mark.parametrize("text", ["", "[]", '{"Layers": ["a name only"]}', '{"Layers": [{}]}'])
def test_a_report_without_detail_is_told(text: str) -> None:
    with pytest.raises(BuildError, match="cannot be read"):
        inspect(text)
