"""From a float graph and feeds to a Q/DQ graph, on a block of a transformer made here."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy import CalibrationError, ConfigError
from llmdeploy.calibration import pairs
from llmdeploy.passes import load
from llmdeploy.toolchain.choosing import paired
from llmdeploy.toolchain.config import Build, Calibration, Config
from llmdeploy.toolchain.int8.quantizing import calibrate, quantize
from llmdeploy.toolchain.int8.showing import lines
from llmdeploy.toolchain.replay import replay
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
agraph (int64[batch,sequence] input_ids, int64[batch,sequence] attention_mask)
=> (float[batch,sequence,32] out)
{
  e = Gather(table, input_ids)
  n = LayerNormalization <axis = -1> (e, g, b)
  u = MatMul(n, w)
  a = Add(u, c)
  f = Gelu(a)
  d = MatMul(f, v)
  s = Add(d, n)
  out = LayerNormalization <axis = -1> (s, h, k)
}
"""


def write(folder: Path, seed: int = 0, outlier: float = 30.0) -> Path:
    """The block with random weights; one channel of its norm is `outlier` times the others."""
    random, proto = np.random.default_rng(seed), onnx.parser.parse_model(TEXT)
    gain = np.ones(32)
    gain[3] = outlier
    weights = {
        "table": random.normal(size=(50, 32)),
        "g": gain,
        "b": random.normal(size=32) / 10,
        "w": random.normal(size=(32, 96)) / 6,
        "c": random.normal(size=96) / 10,
        "v": random.normal(size=(96, 32)) / 10,
        "h": np.ones(32),
        "k": np.zeros(32),
    }
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype("f4"), name))
    folder.mkdir(exist_ok=True, parents=True)
    onnx.save(onnx.shape_inference.infer_shapes(proto), folder / "model.onnx")
    return folder / "model.onnx"


def batches(count: int, padding: int = 0, seed: int = 1) -> list[dict[str, np.ndarray]]:
    random, made = np.random.default_rng(seed), []
    for _ in range(count):
        ids = random.integers(0, 49, (8, 6))
        mask = np.ones_like(ids)
        # token 49 is the padding's: an embedding like any other, so that it would be counted
        ids = np.pad(ids, ((0, 0), (0, padding)), constant_values=49)
        made.append({"input_ids": ids, "attention_mask": np.pad(mask, ((0, 0), (0, padding)))})
    return made


@pytest.fixture
def float_model(tmp_path: Path) -> Path:
    return write(tmp_path / "float")


def chain(model: Path, root: Path, feeds=None, **options) -> tuple[dict, dict]:
    feeds = feeds or batches(8)
    for name in ("calibrate", "quantize"):
        (root / name).mkdir(parents=True)
    found = calibrate(
        model, root / "calibrate", feeds[:6], mask="attention_mask", held_out=feeds[6:]
    )
    made = quantize(
        model,
        root / "calibrate",
        root / "quantize",
        feeds=feeds[6:],
        mask="attention_mask",
        **options,
    )
    return found, made


def test_the_graph_holds_and_says_how(float_model: Path, tmp_path: Path):
    found, made = chain(float_model, tmp_path / "a")
    assert made["int8_share"] == 1.0
    assert made["mean_cosine_holdout"] > 0.999
    assert found["tokens"] == 8 * 8 * 6
    first, second = made["layers"]
    assert (first["k"], first["n"], first["macs"]) == (32, 96, 32 * 96)
    assert first["smoothing"] is not None, "an outlier of 30 is smoothed"
    assert (first["fold"], second["fold"]) == ("twin", "node")
    assert min(first["snr_db"], second["snr_db"]) > 25
    feeds = batches(4, seed=9)
    before, after = (
        np.concatenate([outputs["out"] for outputs in replay(path, feeds)])
        for path in (float_model, tmp_path / "a/quantize/model.onnx")
    )
    norms = np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
    assert ((before * after).sum(-1) / norms).mean() > 0.999


def test_paired_weights_fit_in_sixteen_bits_two_by_two(float_model: Path, tmp_path: Path):
    _, made = chain(float_model, tmp_path / "a", paired=True)
    assert made["mean_cosine_holdout"] > 0.999
    kept = load(tmp_path / "a/quantize/model.onnx").graph.initializers.values()
    weights = [each.const_value.numpy() for each in kept if each.dtype == ir.DataType.INT8]
    levels = [each for each in weights if each.ndim == 2]
    assert len(levels) == 2
    assert all(np.array_equal(pairs.fitted(each), each) for each in levels)
    _, plain = chain(float_model, tmp_path / "b")
    assert made["layers"][0]["snr_db"] > plain["layers"][0]["snr_db"] - 2


@pytest.mark.parametrize(
    ("asked", "backends", "so"),
    [
        ("auto", ("onnxruntime",), True),
        ("auto", ("tensorrt-rtx",), False),
        ("auto", ("tensorrt-rtx", "onnxruntime"), True),
        (False, ("onnxruntime",), False),
        (True, ("tensorrt-rtx",), True),
    ],
)
def test_pairs_are_for_backends_that_gain(tmp_path, asked, backends, so):
    config = Config(calibration=Calibration(pairs=asked), build=Build(backends=backends))
    assert paired(Run(config, Workspace(tmp_path))) is so


def test_the_float_weights_are_gone(float_model: Path, tmp_path: Path):
    chain(float_model, tmp_path / "a")
    kept = load(tmp_path / "a/quantize/model.onnx").graph.initializers.values()
    wide = {value.dtype.name for value in kept if value.const_value.size == 32 * 96}
    assert wide == {"INT8"}
    assert sorted(path.name for path in (tmp_path / "a/quantize").iterdir()) == [
        "model.onnx",
        "model.onnx.data",
    ]


def test_the_same_input_gives_the_same_bytes(float_model: Path, tmp_path: Path):
    for name in "ab":
        chain(float_model, tmp_path / name)
    for file in ("calibrate/ranges.json", "calibrate/ranges.safetensors", "quantize/model.onnx"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_padding_changes_nothing(float_model: Path, tmp_path: Path):
    chain(float_model, tmp_path / "a", batches(8))
    chain(float_model, tmp_path / "b", batches(8, padding=5))
    one, two = (
        json.loads((tmp_path / name / "calibrate/ranges.json").read_text())["ranges"]
        for name in "ab"
    )
    for tensor, record in one.items():
        assert record["rows"] == two[tensor]["rows"]
        for key in ("low", "high", "amax"):
            # the sums of the float model's MatMuls may differ in the last place
            np.testing.assert_allclose(record[key], two[tensor][key], rtol=1e-5)


def test_layers_kept_by_name(float_model: Path, tmp_path: Path):
    _, plain = chain(float_model, tmp_path / "a")
    name = plain["layers"][1]["node"]
    _, made = chain(float_model, tmp_path / "b", keep=[name])
    assert [layer["int8"] for layer in made["layers"]] == [True, False]
    assert made["layers"][1]["reason"] == "kept by name"
    assert made["int8_share"] == 0.5
    with pytest.raises(ConfigError, match=r"no weight MatMul called 'nope'.*keep"):
        chain(float_model, tmp_path / "c", keep=["nope"])


def test_a_budget_is_held_with_what_costs_least(float_model: Path, tmp_path: Path):
    _, free = chain(float_model, tmp_path / "a")
    budget = (1 - free["mean_cosine_holdout"]) / 2
    _, made = chain(float_model, tmp_path / "b", max_drop=budget)
    assert 1 - made["mean_cosine_holdout"] <= budget + 1e-6
    assert made["int8_share"] == 0.5
    left = next(layer for layer in made["layers"] if not layer["int8"])
    assert left["reason"] == "kept in float to hold max-drop"
    assert len(made["sensitivity"]) == 2


def test_a_budget_of_one_held_out_row_is_held_and_told(float_model: Path, tmp_path: Path):
    """A classifier of a handful of samples: no cosine is made up, and max-drop still means one."""
    proto = onnx.load(float_model)
    end = onnx.parser.parse_graph(
        "a (float[batch,sequence,32] out) => (float[batch,2] logits)"
        "{ i = Constant <value = int64 {0}> () p = Gather <axis = 1> (out, i) logits = MatMul(p, y) }"
    )
    proto.graph.node.extend(end.node)
    weights = np.random.default_rng(0).normal(size=(32, 2)).astype("f4")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "y"))
    proto.graph.ClearField("output")
    proto.graph.output.extend(end.output)
    onnx.save(onnx.shape_inference.infer_shapes(proto), float_model)
    feeds = [*batches(6), {name: each[:1] for name, each in batches(1, seed=9)[0].items()}]
    _, made = chain(float_model, tmp_path / "a", feeds, max_drop=1.0)
    assert made["int8_share"] > 0.9
    assert made["mean_cosine_holdout"] is None
    assert any("too few held-out rows" in note for note in made["notes"])
    _, strict = chain(float_model, tmp_path / "b", feeds, max_drop=1e-9)
    assert strict["int8_share"] == 0


def test_an_activation_that_a_tied_head_reads_too(float_model: Path, tmp_path: Path):
    proto = onnx.load(float_model)
    head = onnx.parser.parse_graph(
        "a (float[batch,sequence,32] n) => (float[batch,sequence,50] logits)"
        "{ t = Transpose <perm = [1, 0]> (table) logits = MatMul(n, t) }"
    )
    proto.graph.node.extend(head.node)
    proto.graph.output.extend(head.output)
    onnx.save(onnx.shape_inference.infer_shapes(proto), float_model)
    _, made = chain(float_model, tmp_path / "a")
    assert [layer["int8"] for layer in made["layers"]] == [True, False, True]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("size", [1e17, 1e19, 1e30])
def test_activations_too_large_to_square_are_named(size: float, tmp_path: Path):
    model = write(tmp_path / "float")
    proto = onnx.load(model)
    for each in proto.graph.initializer:
        if each.name in ("g", "b"):  # the norm's: what its layer reads
            array = onnx.numpy_helper.to_array(each) * np.float32(size)
            each.CopyFrom(onnx.numpy_helper.from_array(array, each.name))
    onnx.save(proto, model)
    with pytest.raises(CalibrationError, match="tensor n"):
        calibrate(model, tmp_path, batches(8), mask="attention_mask")


def test_weights_of_experts_are_in_the_table_and_the_share(float_model: Path, tmp_path: Path):
    proto = onnx.load(float_model)
    stack = np.random.default_rng(0).normal(size=(1, 32, 96)).astype("f4") / 6
    proto.graph.initializer.append(onnx.numpy_helper.from_array(stack, "stack"))
    proto.graph.node[2].input[1] = "stack"  # the first MatMul
    onnx.save(proto, float_model)
    _, made = chain(float_model, tmp_path / "a")
    assert made["int8_share"] == 0.5
    (refused,) = (layer for layer in made["layers"] if not layer["int8"])
    assert (refused["k"], refused["n"], refused["snr_db"]) == (32, 96, None)
    assert "experts" in refused["reason"]


def test_ranges_of_another_model_are_refused(float_model: Path, tmp_path: Path):
    chain(float_model, tmp_path / "a")
    other = write(tmp_path / "other", seed=1)
    with pytest.raises(ConfigError, match="of another model"):
        quantize(other, tmp_path / "a/calibrate", tmp_path / "a/quantize", feeds=batches(1))


def test_ranges_that_are_cut_off_are_refused(float_model: Path, tmp_path: Path):
    chain(float_model, tmp_path / "a")
    path = tmp_path / "a/calibrate/ranges.json"
    path.write_text(path.read_text()[:500])
    with pytest.raises(CalibrationError, match="calibrate again"):
        quantize(float_model, path.parent, tmp_path / "a/quantize", feeds=batches(1))


def test_samples_that_do_not_fit(float_model: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="needs calibration samples"):
        calibrate(float_model, tmp_path, [], mask=None)
    ids = batches(1)[0]["input_ids"]
    with pytest.raises(ConfigError, match="no array 'attention_mask'"):
        calibrate(float_model, tmp_path, [{"input_ids": ids}], mask="attention_mask")
    feed = {"input_ids": ids, "attention_mask": np.ones(8, np.int64)}
    with pytest.raises(ConfigError, match=r"'attention_mask' is \[8\]"):
        calibrate(float_model, tmp_path, [feed], mask="attention_mask")
    with pytest.raises(ConfigError, match="no input 'labels'"):
        calibrate(float_model, tmp_path, [batches(1)[0] | {"labels": ids}], mask="attention_mask")


def test_few_samples_are_told(float_model: Path, tmp_path: Path):
    found = calibrate(float_model, tmp_path, batches(1), mask="attention_mask")
    assert "only 8 samples" in found["notes"][0]


def test_nan_names_tensor_and_sample(tmp_path: Path):
    model = write(tmp_path / "float")
    proto = onnx.load(model)
    table = next(each for each in proto.graph.initializer if each.name == "table")
    array = onnx.numpy_helper.to_array(table).copy()
    array[7] = np.nan
    table.CopyFrom(onnx.numpy_helper.from_array(array, "table"))
    onnx.save(proto, model)
    feed = {"input_ids": np.zeros((3, 4), np.int64), "attention_mask": np.ones((3, 4), np.int64)}
    feed["input_ids"][1, 2] = 7
    with pytest.raises(CalibrationError, match=r"NaN.*tensor n, sample 1 of batch 0"):
        calibrate(model, tmp_path, [feed], mask="attention_mask")


@pytest.mark.parametrize("method", ["min-max", "percentile", "mse", "entropy"])
def test_one_method_for_all(method: str, float_model: Path, tmp_path: Path):
    feeds = batches(4)
    calibrate(float_model, tmp_path, feeds, mask="attention_mask", method=method)
    ranges = json.loads((tmp_path / "ranges.json").read_text())["ranges"].values()
    assert {record["observer"] for record in ranges} == {method}
    with pytest.raises(ConfigError, match="nothing in observers is called 'nope'"):
        calibrate(float_model, tmp_path, feeds, mask="attention_mask", method="nope")


def test_a_dead_channel_is_told_and_no_trouble(tmp_path: Path):
    """Its gain is 0 and so is its bias: a channel of the norm that is 0 for every token."""
    model = write(tmp_path / "float", outlier=0.0)
    proto = onnx.load(model)
    bias = next(each for each in proto.graph.initializer if each.name == "b")
    array = onnx.numpy_helper.to_array(bias).copy()
    array[3] = 0
    bias.CopyFrom(onnx.numpy_helper.from_array(array, "b"))
    onnx.save(proto, model)
    found, made = chain(model, tmp_path / "a")
    assert found["notes"] == ["1 channels of n are dead: zero for every token of the samples"]
    assert made["mean_cosine_holdout"] > 0.999


def test_the_worst_layers_are_shown_first(float_model: Path, tmp_path: Path):
    found, made = chain(float_model, tmp_path / "a")
    head, covered, _, *layers = lines(found)
    assert head.startswith("samples 64, digest")
    assert covered == "tokens 384, 49 different ones; 6 to 6 a sample, half have 6 or fewer"
    assert len(layers) == len(made["layers"]) == 2
    decibels = [float(line.split(" dB")[0]) for line in layers]
    assert decibels == sorted(decibels)
    assert made["layers"][0]["node"] in "".join(layers)
