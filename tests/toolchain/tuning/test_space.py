"""The space of points: built from what is offered, in order, and made configurations of."""

from pathlib import Path
from typing import Any

import pytest
from llmdeploy.toolchain.config import Config, PassTable, load
from llmdeploy.toolchain.tuning.limits import Limits
from llmdeploy.toolchain.tuning.space import configured, space_of, tunable, words
from llmdeploy.toolchain.tuning.study import encoded, suggested
from llmdeploy.toolchain.tuning.written import gated, text, write

SPACE = space_of(("fp32", "int8", "int4"), ("prune",), (0, 1), heads=("w8", "int4"))
PASSES = ("prune", "low-rank")


class Fixed:
    """A trial of Optuna's that proposes what it was told."""

    def __init__(self, params: dict[str, Any]) -> None:
        self._params = params

    def suggest_int(self, name: str, low: int, high: int) -> int:
        assert low <= self._params[name] <= high
        return self._params[name]

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        assert self._params[name] in choices
        return self._params[name]


def test_passes_are_found_by_what_they_say_of_themselves():
    assert {"prune", "low-rank", "sparsify"} <= set(tunable())
    assert not {"clean", "fold", "fuse"} & set(tunable())


def test_every_point_is_one_of_its_kind_and_knobs_hang_together():
    points = list(SPACE.points())
    assert len({tuple(point.items()) for point in points}) == len(points)
    assert all(("prune.speedup" in point) == (point["prune"] == "speedup") for point in points)
    assert all(("precision.head" in point) == (point["precision"] == "int4") for point in points)


def test_a_point_goes_to_optuna_and_back():
    for point in SPACE.points():
        assert suggested(SPACE, Fixed(encoded(SPACE, point))) == point


def test_milder_is_no_more_of_anything_and_the_same_of_all_else():
    def at(**more: Any) -> dict[str, Any]:
        return SPACE.whole({"precision": "int8", **more})

    some = {"prune": "shares", "prune.heads": 0.0}
    quarter, half = (at(**some, **{"prune.neurons": share}) for share in (0.25, 0.5))
    assert SPACE.milder(at(), half)
    assert SPACE.milder(quarter, half)
    assert not SPACE.milder(half, quarter)
    assert not SPACE.milder({**quarter, "precision": "fp32"}, half)
    assert not SPACE.milder(at(prune="speedup"), half)
    assert not SPACE.milder({**quarter, "threads": 1}, half)


def test_a_point_as_a_configuration_keeps_what_it_does_not_decide():
    base = Config(passes=(*Config().passes, PassTable(use="prune", speedup=3.0)))
    point = SPACE.whole({"precision": "int4", "prune": "speedup", "threads": 1})
    made = configured(base, point, "onnxruntime", PASSES)
    assert [table.use for table in made.passes] == ["clean", "fold", "fuse", "clean", "prune"]
    assert made.passes[-1].options == {"speedup": 1.25, "minutes": 0.7, "max_drop": 0.5}
    assert (made.build.precision, made.quantize.head) == ("int4", False)
    assert made.build.options == {"onnxruntime": {"threads": 1}}
    plain = configured(base, SPACE.whole({}), "onnxruntime", PASSES)
    assert [table.use for table in plain.passes] == ["clean", "fold", "fuse", "clean"]
    assert words(point) == "int4, prune speedup 1.25, threads 1"


@pytest.mark.parametrize("inner", ["", "deeper"])
def test_the_written_file_is_read_as_the_same_configuration(tmp_path: Path, inner: str):
    (tmp_path / "t.txt").write_text("a\n")
    (tmp_path / "llmdeploy.toml").write_text(
        '[model]\ncheckpoint = "package:x/y"\n[calibration]\nsamples = "t.txt"\n'
        '[build.profile]\nbatch = [1, 1, 8]\n[build.options."tensorrt-rtx"]\nx = "a\\"b"\n'
    )
    base = load(tmp_path / "llmdeploy.toml")
    point = SPACE.whole({"precision": "int8", "prune": "shares"})
    limits = Limits(min_speedup=2, max_drop=0.01)
    config = gated(configured(base, point, "onnxruntime", PASSES), limits, evaluated=True)
    found = write(config, tmp_path / inner / "tuned.toml", "what\nand why")
    assert found.path(found.calibration.samples).resolve() == tmp_path / "t.txt"
    assert found.model_copy(
        update={"calibration": config.calibration, "folder": config.folder}
    ) == (config)
    assert (found.gate.min_speedup, found.gate.max_score_drop) == (2, 0.01)
    assert text(config, tmp_path, "").count("[[passes]]") == 5


def test_without_a_metric_a_drop_is_one_of_the_outputs():
    limits = Limits(max_drop=0.02)
    assert gated(Config(), limits, evaluated=False).gate.min_cosine == pytest.approx(0.98)


def test_no_passes_and_a_chain_are_read_as_they_were(tmp_path: Path):
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "ca.pem").write_text("x")
    path = tmp_path / "llmdeploy.toml"
    path.write_text('passes = []\n[bundle]\nchain = ["certs/ca.pem", "gone.pem"]\n')
    found = write(load(path), tmp_path / "deeper" / "tuned.toml", "what")
    assert found.passes == ()
    assert found.path(found.bundle.chain[0]).resolve() == tmp_path / "certs" / "ca.pem"
    assert found.bundle.chain[1] == "gone.pem"
