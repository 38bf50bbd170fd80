"""Places that are compared: the logits and caches of real tokens, and rows without padding."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from llmdeploy.deploy.parity import Tolerance, compare
from llmdeploy.deploy.signature import Signature, Tensor
from llmdeploy.toolchain.feeds import valid
from llmdeploy.toolchain.replay import unpadded
from llmdeploy.toolchain.run import Run

CACHE: tuple[int | str, ...] = ("batch", 2, "total", 4)
FEED = {
    "input_ids": np.array([[7, 8], [7, 8]]),
    "attention_mask": np.array([[0, 0, 1, 1], [1, 1, 1, 1]]),
}
COSINE = Tolerance(min_cosine=0.999)


def tensor(role: str, *shape: int | str, dtype: str = "float32") -> Tensor:
    return Tensor(name=role, dtype=dtype, shape=shape, role=role)


def decoder(folder: Path) -> Run:
    """An export whose graph reads the cache of two places and makes that of four."""
    known = Signature(
        task="text-generation",
        inputs=(
            tensor("input_ids", "batch", "sequence", dtype="int64"),
            tensor("attention_mask", "batch", "total", dtype="int64"),
        ),
        outputs=(
            tensor("logits", "batch", "sequence", 5),
            tensor("present_key.0", *CACHE),
            tensor("present_value.0", "batch", 2, "encoded", 4),
        ),
    )
    known.save(folder)
    return cast("Run", SimpleNamespace(folder=lambda *_: folder))


def outputs() -> dict[str, np.ndarray[Any, Any]]:
    shapes = {"logits": (2, 2, 5), "present_key.0": (2, 2, 4, 4), "present_value.0": (2, 2, 3, 4)}
    random = np.random.default_rng(0)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(("row", "place", "holds"), [(0, 1, True), (0, 2, False), (1, 1, False)])
def test_a_cache_is_compared_where_its_tokens_are_real(
    row: int, place: int, holds: bool, tmp_path: Path
) -> None:
    marks, before, after = valid(decoder(tmp_path), [FEED]), outputs(), outputs()
    after["present_key.0"][row, :, place] *= -3
    assert compare("a", "b", [before], [after], COSINE, marks).ok is holds


def test_another_cache_is_compared_whole(tmp_path: Path) -> None:
    marks = valid(decoder(tmp_path), [FEED])
    assert set(marks[0]) == {"logits", "present_key.0"}
    assert marks[0]["logits"].tolist() == [[True, True], [True, True]]


def test_outputs_are_probed_on_rows_without_padding() -> None:
    padded = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    feed = {"ids": np.arange(8).reshape(4, 2), "mask": padded, "scale": np.array(2.0)}
    found = unpadded(feed, "mask")
    assert found["ids"].tolist() == [[2, 3], [6, 7]]
    assert found["mask"].all()
    assert found["scale"] == 2.0


@pytest.mark.parametrize("mask", [None, "other"])
def test_without_a_mask_every_row_is_probed(mask: str | None) -> None:
    feed = {"ids": np.arange(4).reshape(2, 2)}
    assert unpadded(feed, mask) is feed


def test_rows_that_all_have_padding_are_probed_as_they_are() -> None:
    feed = {"ids": np.arange(4).reshape(2, 2), "mask": np.array([[1, 0], [0, 1]])}
    assert unpadded(feed, "mask") is feed
