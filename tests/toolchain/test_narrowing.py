"""What a narrow graph takes and gives, from what the dense one does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llmdeploy.deploy.signature import Signature, Tensor
from llmdeploy.toolchain.narrowing import Narrowing, read, through


@pytest.fixture
def narrow() -> Narrowing:
    """Heads 0 and 2 of 3 stay of a cache, another is gone; of 6 ids 0, 3 and 5 stay."""
    cuts = {"past": (1, (0, 2)), "present": (1, (0, 2)), "logits": (2, (0, 3, 5))}
    return Narrowing(cuts, gone=("other",), ids=(0, 3, 5), tokens=("ids",), unknown=0)


def feed() -> dict[str, Any]:
    return {
        "ids": np.array([[5, 3, 1, 0]]),
        "past": np.arange(12.0).reshape(1, 3, 2, 2),
        "other": np.zeros(1),
    }


def test_feeds_and_outputs(narrow: Narrowing) -> None:
    made = narrow.feed(feed())
    assert made["ids"].tolist() == [[2, 1, 0, 0]]
    np.testing.assert_array_equal(made["past"], feed()["past"][:, [0, 2]])
    assert "other" not in made
    logits = np.arange(6.0).reshape(1, 1, 6)
    assert narrow.outputs({"logits": logits})["logits"].tolist() == [[[0.0, 3.0, 5.0]]]


def test_it_is_what_it_was_after_the_disk(narrow: Narrowing, tmp_path: Path) -> None:
    narrow.save(tmp_path)
    assert read(tmp_path) == narrow
    assert not read(tmp_path / "none")


def test_one_after_the_other(narrow: Narrowing) -> None:
    both = narrow.then(Narrowing({"past": (1, (1,))}, gone=("present",)))
    assert both.cuts["past"] == (1, (2,))
    assert both.gone == ("other", "present")
    assert both.ids == narrow.ids
    np.testing.assert_array_equal(both.feed(feed())["past"], feed()["past"][:, [2]])


def test_io_json_follows(narrow: Narrowing) -> None:
    def tensor(name: str, *shape: int | str, pad: int | None = None) -> Tensor:
        return Tensor(name=name, dtype="float32", shape=shape, role=name, pad=pad)

    known = Signature(
        task="text-generation",
        inputs=(
            tensor("ids", "batch", "sequence", pad=3),
            tensor("past", "batch", 3, "past", 2),
            tensor("other", 1),
        ),
        outputs=(tensor("logits", "batch", "sequence", 6), tensor("present", "batch", 3, 4, 2)),
    )
    found = narrow.signature(known)
    assert [each.name for each in found.inputs] == ["ids", "past"]
    assert found.inputs[0].pad == 1
    assert found.inputs[1].shape == ("batch", 2, "past", 2)
    assert found.outputs[0].shape == ("batch", "sequence", 3)


def test_a_feed_is_made_to_fit_once(narrow: Narrowing) -> None:
    seen = list[int]()
    call = through(narrow, lambda each: seen.append(id(each)))
    one = feed()
    call(one)
    call(one)
    assert seen[0] == seen[1] != id(one)


def test_a_cache_of_levels(narrow: Narrowing, tmp_path: Path) -> None:
    """Of heads 0 and 2 that stay, each channel has a step of its own."""
    steps = ((0.5, 1.0), (2.0, 4.0))
    both = narrow.then(Narrowing(steps={"past": steps, "present": steps}))
    made = both.feed(feed())
    assert made["past"].dtype == np.int8
    assert made["past"].tolist() == [[[[0, 1], [4, 3]], [[4, 2], [5, 3]]]]  # 10 / 4 and 2.5 to even
    present = {"present": np.full((1, 2, 1, 2), 3, np.int8), "logits": np.ones((1, 1, 3))}
    tensor = Tensor(name="present", dtype="float16", shape=(1, 3, 1, 2), role="present_key.0")
    known = Signature(task="text-generation", inputs=(), outputs=(tensor,))
    restored = both.restored(known, present)
    assert restored["present"].dtype == np.float16  # as the dense graph's, which it is held against
    assert restored["present"].tolist() == [[[[1.5, 3.0]], [[6.0, 12.0]]]]
    assert restored["logits"] is present["logits"]
    dense = both.outputs({"present": np.ones((1, 3, 1, 2), np.float32)})["present"]
    assert (dense.dtype, dense.shape) == (np.float32, (1, 2, 1, 2))
    both.save(tmp_path)
    assert read(tmp_path) == both
    tensor = Tensor(name="past", dtype="float32", shape=("batch", 3, "past", 2), role="past_key.0")
    known = Signature(task="text-generation", inputs=(tensor,), outputs=())
    assert both.signature(known).inputs[0].dtype == "int8"


def test_levels_end_where_int8_does() -> None:
    made = Narrowing(steps={"past": ((0.01,),)}).feed({"past": np.array([[[[9.0], [-9.0]]]])})
    assert made["past"].ravel().tolist() == [127, -128]
