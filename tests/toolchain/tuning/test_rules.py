"""Limits, roofline and rules: what is asked for, what calls wait for, what is worth trying and why."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.toolchain.config import Config, Gate
from llmdeploy.toolchain.tuning.advice import Facts, advise, first, space
from llmdeploy.toolchain.tuning.clock import Clock
from llmdeploy.toolchain.tuning.hardware import Hardware, probe
from llmdeploy.toolchain.tuning.limits import Limits, limits_of, says, violations, worst
from llmdeploy.toolchain.tuning.roofline import Shape, roofline, shape_of

HERE = Hardware(
    target="onnxruntime",
    cpu="a CPU",
    cores=4,
    memory_bytes=2**34,
    flops=100e9,
    bytes_per_s=10e9,
    int8_gain=3.0,
    thin_gain=0.8,
)
SHAPE = Shape(
    layers=2, macs=10**7, moved=4000, layer_bytes=4 * 10**7, weight_bytes=10**8, cached=False
)


class Turbo:
    """A backend that is none of ours."""

    precisions = frozenset({"fp32", "int8", "fp16", "w8", "int4"})


def feeds(rows: int, tokens: int) -> dict[str, Any]:
    ids = np.ones((rows, tokens), np.int64)
    return {f"{rows}x{tokens}": {"input_ids": ids, "attention_mask": ids}}


def facts(shape: Shape = SHAPE, tokens: int = 128, **more: Any) -> Facts:
    given: dict[str, Any] = {
        "limits": Limits(min_speedup=2, max_drop=0.01),
        "config": Config(),
        "target": "onnxruntime",
        "backend": OnnxRuntime(),
        "samples": True,
        "hardware": HERE,
        **more,
    }
    return Facts(shape=shape, calls=roofline(shape, {"": feeds(1, tokens)}, HERE), **given)


def tried(found: Facts) -> dict[str, bool]:
    return {each.what: each.tried for each in advise(found)}


def test_a_limit_of_the_command_line_goes_over_the_gate():
    gate = Gate(min_speedup=1.5, max_size_mb=10)
    limits = limits_of({"min_speedup": 2.0, "max_drop": None}, gate)
    assert limits.asked == {"min_speedup": 2.0, "max_size_mb": 10}


@pytest.mark.parametrize(
    "given", [{}, {"max_drop": 1.0}, {"min_speedup": -1.0}, {"max_size_mb": float("nan")}]
)
def test_what_is_no_limit_is_refused(given: dict[str, float]):
    with pytest.raises(ConfigError):
        limits_of(given, Gate())


def test_how_far_a_figure_is_beyond_its_limit():
    limits = Limits(min_speedup=2, max_size_mb=100, max_drop=0.01)
    beyond = violations(limits, {"speedup": 1.5, "size_mb": 90, "drop": 0.03})
    assert beyond == pytest.approx({"min_speedup": 0.25, "max_size_mb": -0.1, "max_drop": 0.02})
    assert worst(beyond) == "min_speedup"
    assert violations(limits, {"speedup": 2.5}) == pytest.approx({"min_speedup": -0.25})
    assert says("min_speedup", 1.5, 2) == "speed-up 1.5 times, asked for 2"


def test_the_roofline_by_hand():
    (call,) = roofline(SHAPE, {"": feeds(2, 64)}, HERE)
    assert (call.rows, call.tokens) == (2, 128)
    assert call.flops == 2 * 10**7 * 128
    assert call.compute_s == pytest.approx(call.flops / 100e9)
    assert call.memory_s == pytest.approx(4e7 / 10e9)
    assert call.bound == "compute"
    (one,) = roofline(SHAPE, {"decode": feeds(1, 1)}, HERE)
    assert one.bound == "memory"
    assert one.intensity < HERE.ridge < call.intensity


def test_a_graphs_facts_are_read_without_its_weights(tmp_path: Path):
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[n, 8] x) => (float[n, 4] y) <float[8, 16] a = {0}, float[16, 4] b = {0}> {
            [one] h = MatMul(x, a)
            [two] y = MatMul(h, b)
        }""")
    for tensor, shape in zip(model.graph.initializer, ((8, 16), (16, 4)), strict=True):
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones(shape, np.float32), tensor.name))
    onnx.save(model, tmp_path / "model.onnx")
    found = shape_of(tmp_path / "model.onnx", cached=False)
    assert (found.layers, found.macs, found.moved) == (2, 8 * 16 + 16 * 4, 24 + 20)
    assert found.weight_bytes == found.layer_bytes == 4 * found.macs


ROUTED = """scores = MatMul(x, router)
    weights, chosen = TopK(scores, two)"""
EXPERTS = {
    "all of them": ("w = Identity(stack) y = MatMul(x, w)", 1.0),
    "each apart": (f"""{ROUTED}
        a, b, c, d = Split <axis = 0, num_outputs = 4> (stack)
        e = Squeeze(a, zero) f = Squeeze(b, zero) g = Squeeze(c, zero) h = Squeeze(d, zero)
        p = MatMul(x, e) q = MatMul(x, f) r = MatMul(x, g) s = MatMul(x, h)
        y = Sum(p, q, r, s)""", 0.5),
    "those that a token picks": (f"""{ROUTED}
        w = Gather(stack, chosen) z = Unsqueeze(x, one) u = Unsqueeze(z, one)
        y = MatMul(u, w)""", 0.5),
}  # fmt: skip


@pytest.mark.parametrize("kind", EXPERTS)
def test_experts_are_multiplied_by_and_read_where_tokens_are_sent(kind: str, tmp_path: Path):
    body, share = EXPERTS[kind]
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[n, 32] x) => (float[] y)
        <int64[1] two = {{2}}, int64[1] zero = {{0}}, int64[1] one = {{1}}> {{ {body} }}""")
    for name, shape in (("stack", (4, 32, 16)), ("router", (32, 4))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, "f4"), name))
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "model.onnx")
    found = shape_of(tmp_path / "model.onnx", cached=False)
    stack, router = 4 * 32 * 16, 0 if share == 1 else 32 * 4
    assert found.macs == stack * share + router
    assert (found.expert_bytes, found.layer_bytes) == (4 * stack, 4 * router)
    assert found.read(1) == 4 * (stack * share + router)
    assert found.read(64) == 4 * (stack + router)


def test_few_bits_where_calls_wait_for_weights_and_int8_where_they_multiply():
    multiplying, reading = tried(facts(tokens=128)), tried(facts(tokens=1))
    assert multiplying["int8"]
    assert not multiplying["int4"]
    assert reading["int4"]
    assert reading["w8"]


def test_zeros_only_where_a_kernel_gains_by_them():
    assert not tried(facts())["sparsify"]
    assert tried(facts(target="tensorrt", backend=Turbo()))["sparsify"]


def test_nothing_is_pruned_or_fitted_without_a_need_or_samples():
    assert not tried(facts(limits=Limits(max_drop=0.01)))["prune"]
    assert tried(facts())["prune"]
    without = tried(facts(samples=False))
    assert not without["prune"]
    assert not without["int8"]


def test_a_size_that_int8_cannot_reach_asks_for_fewer_bits_and_ranks():
    found = tried(facts(limits=Limits(max_size_mb=20, max_drop=0.01)))
    assert found["int4"]
    assert found["low-rank"]
    assert found["vocabulary"]
    assert not tried(facts())["vocabulary"]


def test_the_gate_keeps_to_int8_and_the_configuration_to_its_threads():
    config = Config.model_validate(
        {
            "gate": {"min_int8_share": 0.8},
            "build": {"options": {"onnxruntime": {"threads": 2}}},
        }
    )
    found = tried(facts(config=config))
    assert [name for name in ("fp32", "int8", "w8", "int4") if found[name]] == ["int8"]
    assert not found["threads"]


def test_every_rule_says_why_and_the_first_points_are_of_the_space():
    found = facts()
    advice = advise(found)
    assert all(each.why for each in advice)
    whole = space(found, advice)
    points, seeds = list(whole.points()), first(found, whole)
    assert seeds[0] == whole.whole({"precision": "int8"})
    assert all(seed in points for seed in seeds)
    assert whole.whole({"precision": "fp32"}) not in seeds
    assert any(seed["prune"] == "shares" for seed in seeds)


def test_an_encoders_head_is_rounded_from_the_first():
    found = facts()
    headed = facts(SHAPE.model_copy(update={"head_macs": 10**6}))
    whole = space(headed, advise(headed))
    seeds = first(headed, whole)
    assert seeds[:2] == [
        whole.whole({"precision": "int8", "precision.head": each}) for each in (False, True)
    ]
    assert all(seed["precision.head"] for seed in seeds if seed.get("prune") == "shares")
    assert "precision.head" not in first(found, space(found, advise(found)))[0]


def test_a_probe_measures_the_target_through_its_own_door(tmp_path: Path):
    found = probe("onnxruntime", OnnxRuntime(), {"threads": 1}, Clock(tmp_path))
    assert found.flops > 1e8
    assert found.bytes_per_s > 1e7
    assert found.int8_gain
    assert found.thin_gain
