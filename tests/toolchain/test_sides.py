"""Two models side by side: memory of one feed's outputs, whatever the number of feeds."""

import errno
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llmdeploy import Error
from llmdeploy.calibration import blocks
from llmdeploy.deploy.backend import Feed
from llmdeploy.deploy.parity import Outputs, Tolerance
from llmdeploy.toolchain.replay import replay, replays
from llmdeploy.toolchain.sides import Give, Held, Sides, hold
from llmdeploy.toolchain.workspace import Workspace

from .test_quantizing import batches, write

CLASSES = 10_000
#: Bytes of one feed's outputs: 2 rows of 3 tokens.
SIZE = 2 * 3 * CLASSES * 4


def feeds(count: int) -> Iterator[Feed]:
    return ({"seed": np.full((2, 1), index)} for index in range(count))


def model(wrong_from: int = 1000, stop: int = 1000) -> Give:
    """Logits of noise by the feed; others from some feed on, and none from another."""

    def give(given: Sequence[Feed], _: Path) -> Iterator[Outputs]:
        for feed in list(given)[:stop]:
            seed = int(feed["seed"][0, 0])
            made = np.random.default_rng(seed).standard_normal((2, 3, CLASSES), np.float32)
            yield {"logits": -made if seed >= wrong_from else made}
            del made

    return give


def held(folder: Path, count: int, candidate: Give, names: Sequence[str] = ("logits",)) -> Held:
    sides = Sides("ours", "theirs", model(), candidate, Tolerance(max_relative_error=1e-4))
    return hold(sides, feeds(count), lambda given: [{} for _ in given], names, folder)


def test_both_sides_are_compared_in_all(tmp_path: Path):
    found = held(tmp_path, 2, model())
    assert (found.parity.ok, found.parity.samples, found.worst) == (True, 4, None)
    assert found.agreement["logits"] == {
        "places": 12,
        "classes": CLASSES,
        "argmax": 1.0,
        "top_k": 1.0,
        "k": 5,
        "kl_mean": 0.0,
        "kl_max": 0.0,
    }
    assert not list(tmp_path.iterdir())


def test_the_first_feed_that_parts_is_the_one_to_look_into(tmp_path: Path):
    found = held(tmp_path, 3, model(wrong_from=1))
    assert found.worst is not None
    assert found.worst["seed"][0, 0] == 1
    assert found.agreement["logits"]["argmax"] == pytest.approx(1 / 3)
    cut = held(tmp_path, 3, model(stop=2))
    assert (cut.parity.reason, cut.agreement) == ("2 results for 3 samples", {})
    assert cut.worst is not None


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"logits": np.full((2, 3, CLASSES), np.nan, np.float32)}, "NaN or Inf in output logits"),
        ({"logits": np.zeros((2, 3, 7), np.float32)}, "output logits of sample 0 is"),
        ({}, "missing output logits"),
    ],
    ids=["nan", "shape", "missing"],
)
def test_what_differs_from_the_first_feed_on_is_said(
    given: Outputs, reason: str, tmp_path: Path
) -> None:
    found = held(tmp_path, 2, lambda feeds, _: (given for _ in feeds))
    assert found.parity.reason.startswith(reason)
    assert (found.parity.ok, found.agreement) == (False, {})
    assert found.worst is not None


def test_memory_does_not_grow_with_the_feeds(tmp_path: Path):
    held(tmp_path, 1, model())  # what is imported on the way is no memory of feeds

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            held(tmp_path, count, model())
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(6) < peak(2) + SIZE / 2


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    room, write_bytes = 3 * SIZE, Path.write_bytes

    def full(path: Path, data: Any) -> int:
        nonlocal room
        room -= len(data)
        if room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, data)

    def work(folder: Path) -> dict[str, Any]:
        held(folder, 5, model())
        return {}

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Error, match="cannot write: No space left on device") as raised:
        Workspace(tmp_path).run("parity/ours", work, inputs={}, options={}, versions={})
    assert raised.value.exit_code == 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lazy", [False, True])
def test_a_model_larger_than_memory_gives_the_same_a_feed_at_a_time(
    lazy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, given = write(tmp_path / "float"), batches(3)
    wanted = replay(path, given)
    monkeypatch.setattr(blocks, "WHOLE_BYTES", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    aside = tmp_path / "aside"
    aside.mkdir()
    found = list(replays(path, iter(given) if lazy else given, aside))
    assert len(found) == 3
    for one, two in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one["out"], two["out"], rtol=1e-5, atol=1e-6)
    assert not list(aside.iterdir())
