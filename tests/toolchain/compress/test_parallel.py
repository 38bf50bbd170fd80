"""Branches that are added to each other before the stream: pruned, corrected, and gone as a whole."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy.passes import load, save
from llmdeploy.passes.coupling import groups
from llmdeploy.passes.infer import infer
from llmdeploy.passes.sites import by_name
from llmdeploy.toolchain.compress.stage import loss_of
from llmdeploy.toolchain.compress.subject import Subject
from llmdeploy.toolchain.compress.walk import Walk

LAYER = """
  u{i} = MatMul(x{i}, up{i})
  d{i} = MatMul(u{i}, down{i})
  v{i} = MatMul(x{i}, wide{i})
  e{i} = MatMul(v{i}, thin{i})
  s{i} = Add(d{i}, e{i})
"""


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    """Two layers of two linear branches, of which the second's sum is what comes out."""
    random = np.random.default_rng(0)
    body = f"{LAYER.format(i=0)}  x1 = Add(s0, x0)\n{LAYER.format(i=1)}"
    head = '<ir_version: 10, opset_import: ["" : 20]>\nagraph (float[b,s,16] x0) => '
    proto = onnx.parser.parse_model(f"{head}(float[b,s,16] s1)\n{{{body}}}")
    for name in (f"{each}{i}" for i in range(2) for each in ("up", "down", "wide", "thin")):
        shape = (64, 16) if name[:-1] in ("down", "thin") else (16, 64)
        array = (random.normal(size=shape) / shape[0] ** 0.5).astype("f4")
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    save(ir.from_proto(proto), tmp_path / "dense")

    def feeds(count: int) -> list[dict[str, Any]]:
        return [{"x0": random.normal(size=(4, 25, 16)).astype("f4")} for _ in range(count)]

    return Subject(tmp_path / "dense" / "model.onnx", feeds(16), feeds(4))


def walked(subject: Subject, kept: tuple[int, ...], folder: Path) -> float:
    """The loss where each group in turn keeps so many units, of 64."""
    model = load(subject.model)
    by_name(model)
    infer(model)
    found = groups(model)[0]
    plan = {each.consumer: tuple(range(n)) for each, n in zip(found, kept, strict=True)}
    save(Walk(subject, found, folder / "aside").prune(plan), folder / "pruned")
    return loss_of(subject, folder / "pruned" / "model.onnx")


def test_later_layers_see_what_was_changed_in_both_branches(
    subject: Subject, tmp_path: Path
) -> None:
    """Forty units make any linear map of sixteen channels: the last branch makes all good."""
    assert walked(subject, (64, 4, 64, 40), tmp_path) < 0.01


@pytest.mark.parametrize("kept", [(0, 0, 64, 63), (0, 8, 64, 63), (64, 0, 64, 63)])
def test_branches_that_go_as_a_whole(
    subject: Subject, kept: tuple[int, ...], tmp_path: Path
) -> None:
    """One, the other, or both: the last branch makes good what the stream lacks."""
    assert walked(subject, kept, tmp_path) < 0.01
