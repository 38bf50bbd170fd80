"""Pruned on the way from checkpoint to engine: corrected, budgeted, and everything after as dense."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy import ConfigError, PassError
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.deploy.signature import Signature
from llmdeploy.passes import check, load, save
from llmdeploy.passes.coupling import groups
from llmdeploy.passes.infer import infer
from llmdeploy.passes.prune import Prune
from llmdeploy.passes.remove import Remove, droppable
from llmdeploy.passes.sites import by_name, is_weighted, layer_of
from llmdeploy.passes.sparsify import Sparsify
from llmdeploy.toolchain import cli, stages
from llmdeploy.toolchain.compress.cuts import narrowing_of
from llmdeploy.toolchain.compress.pruning import prune
from llmdeploy.toolchain.compress.sparsifying import sparsify
from llmdeploy.toolchain.compress.stage import carry_out, loss_of
from llmdeploy.toolchain.compress.subject import Plan, Subject
from llmdeploy.toolchain.compress.table import Clock
from llmdeploy.toolchain.config import Config, Model, PassTable
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace

LAYER = """
  u{i} = MatMul(x{i}, up{i})
  h{i} = Relu(u{i})
  d{i} = MatMul(h{i}, down{i})
  b{i} = Add(d{i}, bias{i})
  x{n} = Add(x{i}, b{i})
"""
METHODS: tuple[Literal["sparsegpt", "wanda", "magnitude"], ...] = (
    "sparsegpt",
    "wanda",
    "magnitude",
)
PLAIN = ("clean", "fold", "fuse", "clean")
GATE = """
[gate]
allow-unexecuted = ["parity.engine/tensorrt-rtx"]
"""


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Three blocks of 64 neurons whose inputs hang together, and samples of them."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("blocks")
    body = "".join(LAYER.format(i=i, n=i + 1) for i in range(3))
    head = '<ir_version: 10, opset_import: ["" : 20]>\nagraph (float[b,s,16] x0) => '
    text = f"{head}(float[b,s,16] y)\n{{{body}  y = MatMul(x3, last)\n}}"
    proto = onnx.parser.parse_model(text)
    shapes: dict[str, tuple[int, ...]] = {"last": (16, 16)}
    for i in range(3):
        shapes |= {f"up{i}": (16, 64), f"down{i}": (64, 16), f"bias{i}": (16,)}
    for name, shape in shapes.items():
        array = random.normal(size=shape).astype("f4") / shape[0] ** 0.5
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    save(ir.from_proto(proto), folder)
    mix = random.normal(size=(16, 16)) * np.geomspace(1, 0.1, 16)

    def feeds(count: int) -> list[dict[str, Any]]:
        return [{"x0": (random.normal(size=(4, 25, 16)) @ mix).astype("f4")} for _ in range(count)]

    path = folder / "model.onnx"
    return Subject(path, feeds(16), feeds(4), timed={"4x25": feeds(1)[0]})


def exported(checkpoint: Path, folder: Path) -> Path:
    run = Run(Config(model=Model(checkpoint=str(checkpoint))), Workspace(folder / "artifacts"))
    with run.workspace.locked():
        stages.optimize(run)
    return run.folder("optimize")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, give_llama: Callable[..., Path]) -> Path:
    """The optimised graph of a Llama whose query heads share keys."""
    folder = tmp_path_factory.mktemp("llama")
    return exported(give_llama(folder / "checkpoint"), folder)


def language(folder: Path) -> Subject:
    """A causal language model with an empty cache, on random tokens."""
    known, random = Signature.load(folder.parent / "export"), np.random.default_rng(0)
    sizes = {"batch": 2, "sequence": 9, "past": 0, "total": 9}
    feeds: list[dict[str, Any]] = []
    for _ in range(4):
        shapes: dict[str, Any] = {
            t.name: [sizes.get(str(dim), dim) for dim in t.shape] for t in known.inputs
        }
        feeds.append(
            {
                t.name: random.integers(3, 40, shapes[t.name])
                if t.role == "input_ids"
                else np.ones(shapes[t.name], t.dtype)
                for t in known.inputs
            }
        )
    path = folder / "model.onnx"
    return Subject(path, feeds, feeds[:1], logits=("logits",), timed={"2x9": feeds[0]})


def loss(subject: Subject, asked: Prune, folder: Path) -> float:
    save(prune(subject, asked, OnnxRuntime()).model, folder)
    return loss_of(subject, folder / "model.onnx")


def test_correction_and_second_order_lose_least(subject: Subject, tmp_path: Path) -> None:
    half = {"neurons": 0.5, "multiple": 1, "max_drop": 0.9}
    ours = loss(subject, Prune(**half), tmp_path / "ours")
    bare = loss(subject, Prune(**half, correct=False), tmp_path / "bare")
    magnitude = Prune(**half, correct=False, method="magnitude")
    assert ours < 0.3 * bare
    assert bare <= loss(subject, magnitude, tmp_path / "magnitude")


def test_as_fast_as_loss_allows_with_widths_by_layer(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ratio(clock: Clock, plan: Plan, budget_s: float = 0.0) -> tuple[float, float]:
        """A machine whose time is the units that it keeps."""
        del clock, budget_s
        gone = sum(64 - len(kept) for kept in plan.values())
        return 1.0, 1 - 0.8 * gone / 192

    monkeypatch.setattr(Clock, "ratio", ratio)
    made = prune(subject, Prune(max_drop=0.05, multiple=8, minutes=0.2), OnnxRuntime())
    fast = prune(subject, Prune(speedup=1.5, multiple=8, max_drop=0.9), OnnxRuntime())
    assert made.results["latency_ratio"] > 1
    assert fast.results["latency_ratio"] >= 1.5 * 0.99
    assert len({row["kept"] for row in fast.results["layers"]}) > 1
    assert all(len(row["loss"]) == len(row["kept"]) for row in made.results["table"])
    assert made.results["left_alone"]


def test_a_budget_is_held(subject: Subject, tmp_path: Path) -> None:
    table = PassTable(use="prune", neurons=0.9, max_drop=0.0001, multiple=1)
    with pytest.raises(PassError, match=r"max-drop is 0\.0001"):
        carry_out(subject, [table], OnnxRuntime(), tmp_path)
    loose = PassTable(use="prune", neurons=0.25, max_drop=0.5, multiple=1)
    found = carry_out(subject, [loose, PassTable(use="clean")], OnnxRuntime(), tmp_path)
    assert 0 < found["loss"] < 0.5
    assert [step["name"] for step in found["steps"]] == ["prune", "clean"]
    assert found["steps"][0]["applications"] == {"neurons": 48}
    assert not list(tmp_path.glob(".*"))


def test_two_of_four_by_making_up_loses_least(subject: Subject, tmp_path: Path) -> None:
    losses: dict[Any, float] = {}
    for method in METHODS:
        model, told = sparsify(subject, Sparsify(method=method))
        save(model, tmp_path / method)
        losses[method] = loss_of(subject, tmp_path / method / "model.onnx")
        assert {row["two_of_four"] for row in told["sparse"]} == {True}
        assert {row["zeros"] for row in told["sparse"]} == {0.5}
    assert losses["sparsegpt"] < 0.8 * min(losses["wanda"], losses["magnitude"])


def test_few_samples_are_told(subject: Subject) -> None:
    few = Subject(subject.model, subject.fit[:1], subject.held_out)
    made = prune(few, Prune(neurons=0.5, max_drop=0.9, multiple=1), OnnxRuntime())
    assert any("give more samples" in note for note in made.results["notes"])
    assert np.isfinite(loss_of(few, few.model))


def test_no_samples_and_nothing_to_prune(subject: Subject) -> None:
    with pytest.raises(ConfigError, match="needs samples"):
        prune(Subject(subject.model, [], []), Prune(speedup=2), OnnxRuntime())
    with pytest.raises(ConfigError, match="nothing of the model"):
        prune(subject, Prune(neurons=0.0, heads=0.5), OnnxRuntime())


@pytest.mark.parametrize(
    "wrong",
    ["speedup = 1.0", "neurons = 1.0", "heads = -0.1", "layers = 0", "rate = 2",
     "speedup = 2.0\nneurons = 0.5", "speedup = 2.0\nheads = 0.0", "speedup = 2.0\nlayers = 0.5"],
)  # fmt: skip
def test_ratios_of_one_and_beyond(
    tiny_bert: Path,
    some_texts: Path,
    tmp_path: Path,
    wrong: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = written(tmp_path, tiny_bert, some_texts, wrong)
    assert cli.call(["optimize", "-q", "-c", str(config), "-w", str(tmp_path / "a")]) == 2
    assert wrong.split(maxsplit=1)[0] in capsys.readouterr().err


def written(
    folder: Path, checkpoint: Path, texts: Path, options: str, precision: str = "int8"
) -> Path:
    tables = "".join(f'[[passes]]\nuse = "{name}"\n' for name in PLAIN)
    config = folder / "llmdeploy.toml"
    config.write_text(
        f'[model]\ncheckpoint = "{checkpoint}"\n{tables}[[passes]]\nuse = "prune"\n{options}\n'
        f'[calibration]\nsamples = "{texts}"\ncount = 32\nmax-length = 32\nmax-drop = 0.5\n'
        f'[build]\nprecision = "{precision}"\n'
    )
    return config


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=pytest.mark.slow)])
def test_pruned_encoder_goes_on_as_a_dense_one(
    tiny_bert: Path, some_texts: Path, tmp_path: Path, precision: str
) -> None:
    options = "neurons = 0.5\nheads = 0.25\nmultiple = 8\nmax-drop = 0.5"
    config = written(tmp_path, tiny_bert, some_texts, options, precision)
    space = tmp_path / "a"
    assert cli.call(["release", "-q", "-c", str(config), "-w", str(space)]) == 0
    report = json.loads((space / "report.json").read_text())
    assert report["verdict"] == "pass"
    names = [stage["name"] for stage in report["stages"]]
    assert names.index("optimize") < names.index("compress") < names.index("engine/onnxruntime")
    assert {"float/onnxruntime", "bundle/edge"} <= set(names)
    assert {"compress"} <= {line["name"] for line in report["parity"]}
    assert any(step["name"] == "prune" for step in report["passes"])
    model = load(space / "compress")
    layers = [layer_of(node) for node in model.graph if is_weighted(node)]
    widths = {(layer.k, layer.n) for layer in layers}
    assert {(32, 32), (32, 24), (24, 32)} <= widths
    again = cli.call(["build", "-q", "-c", str(config), "-w", str(space)])
    assert again == 0


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_pruned_causal_model_generates_with_a_narrower_cache(
    some_texts: Path, tmp_path: Path, give_llama: Callable[..., Path], precision: str
) -> None:
    """A group of query heads that share keys goes from each layer: io.json follows the cache."""
    checkpoint = give_llama(tmp_path / "checkpoint")
    options = "neurons = 0.5\nheads = 0.5\nmultiple = 8\nmax-drop = 0.9"
    config = written(tmp_path, checkpoint, some_texts, options, precision)
    text = config.read_text()
    config.write_text(f'{text}backends = ["onnxruntime", "tensorrt-rtx"]\n{GATE}')
    space = tmp_path / "a"
    assert cli.call(["release", "-q", "-c", str(config), "-w", str(space)]) == 0
    dense, narrow = (Signature.load(space / name) for name in ("export", "compress"))
    before = [each.shape[1] for each in dense.inputs if each.role.startswith("past_")]
    after = [each.shape[1] for each in narrow.inputs if each.role.startswith("past_")]
    assert after == [int(heads) // 2 for heads in before]
    for folder in ("onnxruntime", "tensorrt-rtx"):
        assert Signature.load(space / "engine" / folder) == narrow
    (bundle,) = (space / "bundle" / "edge").glob("*.tar.zst")
    for path in (space / "engine" / "onnxruntime", bundle):
        assert cli.call(["run", "-q", str(path), "the release"]) == 0
    assert cli.call(["verify", "-q", str(bundle)]) == 0


@pytest.mark.parametrize(
    ("share", "kept", "note"), [(0.2, 2, True), (0.5, 1, False), (0.99, 1, False)]
)
def test_heads_that_share_keys_go_together(
    llama: Path, share: float, kept: int, note: bool
) -> None:
    """Of two groups of query heads a fifth is none, which is said, and one always stays."""
    subject = language(llama)
    asked = Prune(heads=share, multiple=1, max_drop=0.99)
    made = prune(subject, asked, OnnxRuntime())
    rows = [row for row in made.results["layers"] if row["kind"] == "heads"]
    assert {(row["units"], row["kept"]) for row in rows} == {(2, kept)}
    assert any("takes none" in text for text in made.results["notes"]) == note


def test_a_search_takes_heads_with_their_cache(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Really timed, once; then on a machine whose time is the units that are left."""
    subject, model = language(llama), load(llama)
    by_name(model)
    infer(model)
    every = groups(model)[0]
    plan = {each.consumer: (0,) for each in every if each.interface}
    clock = Clock(subject.model, OnnxRuntime(), subject.timed["2x9"], every)
    assert min(clock.ratio(plan, 0.01)) > 0
    clock.close()

    def ratio(clock: Clock, plan: Plan, budget_s: float = 0.0) -> tuple[float, float]:
        del clock, budget_s
        return 1.0, 0.5 + 0.5 * sum(map(len, plan.values())) / 132

    monkeypatch.setattr(Clock, "ratio", ratio)
    asked = Prune(speedup=1.2, multiple=8, max_drop=0.99, minutes=0.2)
    made = prune(subject, asked, OnnxRuntime())
    save(made.model, tmp_path)
    assert 0 <= loss_of(subject, tmp_path / "model.onnx", made.narrowing) < 1


def test_layers_that_cannot_go(subject: Subject) -> None:
    """Blocks without attention are no layers, and nothing is left to run then."""
    with pytest.raises(ConfigError, match="layers cannot go"):
        prune(subject, Prune(layers=0.5, max_drop=0.9), OnnxRuntime())


def test_an_attention_may_go_with_its_cache(llama: Path) -> None:
    """Of all layers but the one whose cache says how long it is."""
    model = load(llama)
    by_name(model)
    infer(model)
    found = [group for group in groups(model)[0] if group.interface]
    free = [group for group in found if droppable(model, group)]
    assert len(free) == len(found) - 1
    names = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    plan = {free[0].consumer: ()}
    Remove(plan)(model)
    left = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    assert names - left == set(free[0].interface) == set(narrowing_of(found, plan).gone)
    check(model, where="without an attention")
    with pytest.raises(PassError, match="cannot lose all"):
        Remove({group.consumer: () for group in found if group not in free})(model)


@pytest.mark.slow
def test_whole_layers_go_where_they_cost_least(
    tmp_path: Path, some_texts: Path, give_llama: Callable[..., Path]
) -> None:
    """One of four layers, whose output is made small: attention, neurons and cache with it."""
    from safetensors.numpy import load_file, save_file

    checkpoint = give_llama(tmp_path / "checkpoint", num_hidden_layers=4)
    weights = load_file(checkpoint / "model.safetensors")
    for name in weights:
        if name.startswith("model.layers.2.") and name.endswith(
            ("o_proj.weight", "down_proj.weight")
        ):
            weights[name] *= 1e-3
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    config = written(tmp_path, checkpoint, some_texts, "layers = 0.25\nmax-drop = 0.9", "fp32")
    space = tmp_path / "a"
    assert cli.call(["release", "-q", "-c", str(config), "-w", str(space)]) == 0
    results = json.loads((space / "compress" / "stage.json").read_text())["results"]
    gone = [row["node"] for row in results["layers"] if row["kept"] == 0]
    assert len(gone) == 2
    assert results["loss"] < 1e-4
    roles = {each.role for each in Signature.load(space / "compress").inputs}
    assert {f"past_key.{at}" for at in (0, 1, 3)} <= roles
    assert "past_key.2" not in roles
    assert cli.call(["run", "-q", str(space / "engine" / "onnxruntime"), "the release"]) == 0
