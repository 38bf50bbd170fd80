"""Recovery of a compressed model: nearer to the dense one, seeded, resumed, or not kept at all."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from llmdeploy import ConfigError
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.passes import load, save
from llmdeploy.passes.prune import Prune
from llmdeploy.passes.recover import Recover
from llmdeploy.passes.sparsify import Sparsify
from llmdeploy.toolchain import cli
from llmdeploy.toolchain.choosing import make_pass
from llmdeploy.toolchain.compress import fitting
from llmdeploy.toolchain.compress.kept import Kept
from llmdeploy.toolchain.compress.pruning import prune
from llmdeploy.toolchain.compress.sparsifying import sparsify
from llmdeploy.toolchain.compress.stage import carry_out, loss_of
from llmdeploy.toolchain.compress.subject import Subject
from llmdeploy.toolchain.config import PassTable
from llmdeploy.toolchain.recovery import training
from llmdeploy.toolchain.recovery.recovering import parted, recover
from llmdeploy.toolchain.recovery.state import State, read

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
agraph (float[b,s,16] x) => (float[b,s,16] y)
{ u = MatMul(x, up)
  h = Relu(u)
  d = MatMul(h, down)
  e = Add(d, bias)
  f = Add(x, e)
  y = MatMul(f, last) }
"""
SHAPES = {"up": (16, 64), "down": (64, 16), "bias": (16,), "last": (16, 16)}


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A block of 64 neurons, and samples of it."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("block")
    proto = onnx.parser.parse_model(TEXT)
    for name, shape in SHAPES.items():
        array = random.normal(size=shape).astype("f4") / shape[0] ** 0.5
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    save(ir.from_proto(proto), folder)

    def feeds(count: int) -> list[dict[str, Any]]:
        return [{"x": random.normal(size=(4, 25, 16)).astype("f4")} for _ in range(count)]

    path = folder / "model.onnx"
    return Subject(path, feeds(16), feeds(4), timed={"4x25": feeds(1)[0]})


@pytest.fixture(scope="module")
def pruned(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pruned")
    asked = Prune(neurons=0.75, multiple=1, max_drop=0.9, correct=False)
    save(prune(subject, asked, OnnxRuntime()).model, folder)
    return folder / "model.onnx"


FEW = Recover(minutes=1, steps=150, learning_rate=0.01)


def weights(model: ir.Model) -> list[np.ndarray]:
    values = (value.const_value for value in model.graph.initializers.values())
    return [tensor.numpy() for tensor in values if tensor is not None]


def test_it_comes_nearer_and_the_seed_decides(
    subject: Subject, pruned: Path, tmp_path: Path
) -> None:
    one, told = recover(subject, pruned, FEW)
    two, _ = recover(subject, pruned, FEW)
    other, _ = recover(subject, pruned, replace(FEW, seed=1))
    save(one, tmp_path)
    assert loss_of(subject, tmp_path / "model.onnx") < 0.5 * loss_of(subject, pruned)
    assert told["recovered"]["steps"] == 150
    assert not told["recovered"]["rolled_back"]
    assert all((a == b).all() for a, b in zip(weights(one), weights(two), strict=True))
    assert any((a != b).any() for a, b in zip(weights(one), weights(other), strict=True))


def test_a_killed_training_goes_on_to_the_same_weights(
    subject: Subject, pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = recover(subject, pruned, FEW)
    monkeypatch.setattr(training, "SAVE_S", 0.0)
    step, count = training.Training._step, 0  # pyright: ignore[reportPrivateUsage]

    def killed(*given: Any) -> None:
        nonlocal count
        count += 1
        if count == 70:
            raise KeyboardInterrupt
        step(*given)

    monkeypatch.setattr(training.Training, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        recover(subject, pruned, FEW, tmp_path)
    monkeypatch.setattr(training.Training, "_step", step)
    rest, told = recover(subject, pruned, FEW, tmp_path)
    assert told["recovered"]["resumed"]
    assert told["recovered"]["steps"] == 150
    assert all((a == b).all() for a, b in zip(weights(whole), weights(rest), strict=True))


@pytest.mark.parametrize("left", [b"", bytes(200), b"no archive", b"PK\3\4 half of one"])
def test_a_state_that_cannot_be_read_is_none(left: bytes, tmp_path: Path) -> None:
    """What a machine that lost its power left of it: the training begins anew."""
    State(step=3, weights={"w": torch.ones(3)}).save(tmp_path)
    assert read(tmp_path, "cpu").step == 3
    (tmp_path / "training.pt").write_bytes(left)
    assert read(tmp_path, "cpu") == State()


def test_what_does_not_help_is_put_back(subject: Subject) -> None:
    """Nothing is nearer to the dense model than itself."""
    wild = Recover(minutes=1, steps=20, learning_rate=0.9)
    found, told = recover(subject, subject.model, wild)
    before = load(subject.model)
    assert told["recovered"]["rolled_back"]
    assert told["recovered"]["loss_after"] == told["recovered"]["loss_before"]
    assert all((a == b).all() for a, b in zip(weights(found), weights(before), strict=True))


def test_a_sample_without_a_gradient_does_not_end_the_training(tmp_path: Path) -> None:
    """The length of a row of zeros has no slope: that batch teaches nothing, the others do."""
    random = np.random.default_rng(0)
    weight = random.normal(size=(16, 16)).astype("f4") / 4

    def written(array: np.ndarray, name: str) -> Path:
        proto = onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["" : 20]>\n'
            "agraph (float[b,s,16] x) => (float[b,s,16] y)\n"
            "{ d = MatMul(x, w) n = ReduceL2(d, last) c = Clip(n, least) y = Div(d, c) }"
        )
        for key, each in (("w", array), ("last", np.array([-1])), ("least", np.float32(1e-12))):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(each), key))
        save(ir.from_proto(proto), tmp_path / name)
        return tmp_path / name / "model.onnx"

    feeds = [{"x": random.normal(size=(4, 9, 16)).astype("f4")} for _ in range(12)]
    feeds[1]["x"][0, 0] = 0
    other = written(weight + random.normal(size=(16, 16)).astype("f4") / 20, "other")
    subject = Subject(written(weight, "dense"), feeds[:8], feeds[8:])
    told = recover(subject, other, Recover(minutes=1, steps=60, learning_rate=2e-3))[1]["recovered"]
    assert not told["rolled_back"]
    assert told["loss_after"] < 0.5 * told["loss_before"]


def test_zeros_stay_zeros(subject: Subject, tmp_path: Path) -> None:
    save(sparsify(subject, Sparsify(max_drop=0.9))[0], tmp_path)
    found, told = recover(subject, tmp_path / "model.onnx", FEW)
    assert not told["recovered"]["rolled_back"]
    shares = [float((array == 0).mean()) for array in weights(found) if array.ndim == 2]
    assert shares == [0.5, 0.5, 0.5]


def test_it_is_a_pass_of_the_stage(subject: Subject, tmp_path: Path) -> None:
    tables = [
        PassTable.model_validate({"use": "prune", "neurons": 0.75, "multiple": 1, "max_drop": 0.9}),
        PassTable.model_validate({"use": "recover", "minutes": 1, "steps": 50}),
    ]
    found = carry_out(subject, tables, OnnxRuntime(), tmp_path)
    assert [step["name"] for step in found["steps"]] == ["prune", "recover"]
    assert found["recovered"]["loss_after"] < found["recovered"]["loss_before"]
    alone = carry_out(subject, tables[:1], OnnxRuntime(), tmp_path / "pruned")
    assert found["loss"] < alone["loss"]
    assert not list(tmp_path.glob(".*"))


def test_a_killed_stage_does_not_prune_again(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [
        PassTable.model_validate({"use": "prune", "neurons": 0.75, "multiple": 1, "max_drop": 0.9}),
        PassTable.model_validate({"use": "recover", "minutes": 1, "steps": 20}),
    ]
    kept, pruned = Kept(tmp_path / "kept", "key"), list[int]()
    real = fitting.prune

    def counted(*given: Any, **named: Any) -> Any:
        pruned.append(1)
        return real(*given, **named)

    monkeypatch.setattr(fitting, "prune", counted)
    with monkeypatch.context() as killed:
        killed.setattr(training.Training, "_step", _killed)
        with pytest.raises(KeyboardInterrupt):
            carry_out(subject, tables, OnnxRuntime(), tmp_path / "one", kept)
    found = carry_out(subject, tables, OnnxRuntime(), tmp_path / "two", kept)
    assert pruned == [1]
    assert [step["name"] for step in found["steps"]] == ["prune", "recover"]
    assert found["layers"]
    assert not kept.folder.exists()


def _killed(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_training_of_another_plan_is_not_taken_up(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two speeds tried in turn, both killed: what is timed anew may have other widths."""
    tables = [
        PassTable.model_validate({"use": "prune", "neurons": 0.75, "multiple": 1, "max_drop": 0.9}),
        PassTable.model_validate({"use": "recover", "minutes": 1, "steps": 20}),
    ]
    other = [
        PassTable.model_validate({"use": "prune", "neurons": 0.5, "multiple": 1, "max_drop": 0.9}),
        tables[1],
    ]
    kept = Kept(tmp_path / "kept", "key")
    for each in (tables, other):
        with monkeypatch.context() as killed:
            killed.setattr(training, "SAVE_S", 0.0)
            killed.setattr(training.Training, "_judge", _killed_late())
            with pytest.raises(KeyboardInterrupt):
                carry_out(subject, each, OnnxRuntime(), tmp_path / "one", kept)
    real = fitting.prune

    def planned(now: Subject, asked: Prune, *given: Any, **named: Any) -> Any:
        return real(now, replace(asked, neurons=0.25), *given, **named)

    monkeypatch.setattr(fitting, "prune", planned)
    found = carry_out(subject, tables, OnnxRuntime(), tmp_path / "two", kept)
    assert not found["recovered"]["resumed"]
    assert found["recovered"]["steps"] == 20


def _killed_late() -> Any:
    """A look at held-out samples that is killed the third time, when a state has been saved."""
    times = iter(range(9))
    look = training.Training._judge  # pyright: ignore[reportPrivateUsage]

    def judge(self: training.Training, state: State) -> None:
        if next(times) == 2:
            raise KeyboardInterrupt
        look(self, state)

    return judge


def test_other_inputs_are_not_taken_up(tmp_path: Path, subject: Subject) -> None:
    tables = [PassTable.model_validate({"use": "prune", "neurons": 0.5})]
    Kept(tmp_path, "key").put(tables, load(subject.model), {"told": 1})
    assert Kept(tmp_path, "key").found(tables) == {"told": 1}
    assert Kept(tmp_path, "another").found(tables) is None
    other = [PassTable.model_validate({"use": "prune", "neurons": 0.25})]
    assert Kept(tmp_path, "key").found(other) is None


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    ("name", "option"),
    [("recover", "minutes"), ("recover", "max-drop"), ("prune", "minutes"),
     ("vocabulary", "max-drop"), ("sparsify", "max-drop"), ("low-rank", "max-drop")],
)  # fmt: skip
def test_a_bound_that_bounds_nothing_is_refused(name: str, option: str, number: float) -> None:
    """TOML has inf and nan: a training of so many minutes never ends."""
    with pytest.raises(ConfigError, match=rf"{option}: \w+ should be a finite number") as caught:
        make_pass(PassTable.model_validate({"use": name, option: number}))
    assert caught.value.exit_code == 2


def test_a_seed_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed: -1 should be greater than or equal to 0"):
        make_pass(PassTable.model_validate({"use": "recover", "seed": -1}))


def test_without_samples_it_is_refused(subject: Subject, pruned: Path) -> None:
    with pytest.raises(ConfigError, match="recover needs samples"):
        recover(Subject(subject.model, [], []), pruned, Recover())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encoder", "causal"])
def test_the_command_line_recovers_and_goes_on(
    kind: str,
    tiny_bert: Path,
    some_texts: Path,
    tmp_path: Path,
    give_llama: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = (
        tiny_bert
        if kind == "encoder"
        else give_llama(tmp_path / "checkpoint", initializer_range=0.25)
    )
    config, space = tmp_path / "llmdeploy.toml", tmp_path / "a"
    config.write_text(
        f'[model]\ncheckpoint = "{checkpoint}"\n[[passes]]\nuse = "fold"\n'
        '[[passes]]\nuse = "prune"\nneurons = 0.5\nheads = 0.5\nmultiple = 8\n'
        "max-drop = 0.9\n"
        f'[calibration]\nsamples = "{some_texts}"\ncount = 32\nmax-length = 32\n'
    )
    asked = ["release", "-q", "-c", str(config), "-w", str(space), "--recover-minutes", "0.05"]
    assert cli.call(asked) == 0, capsys.readouterr().err
    results = json.loads((space / "compress" / "stage.json").read_text())["results"]
    assert results["recovered"]["steps"] > 1
    assert results["recovered"]["loss_after"] < results["recovered"]["loss_before"]
    assert not (space / ".compress").exists()
    assert cli.call(["build", "-q", *asked[2:6], "--recover-minutes", "0"]) == 2


def test_what_chooses_the_weights_does_not_judge_them() -> None:
    batches = [{"x": np.full(1, index)} for index in range(40)]
    steering, judging = parted(batches)
    assert len(steering) == len(judging) == 12
    assert {int(each["x"][0]) for each in steering}.isdisjoint(
        int(each["x"][0]) for each in judging
    )
    assert [list(each) for each in parted(batches[:1])] == [batches[:1], batches[:1]]
