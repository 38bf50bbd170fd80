import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy import text
from llmdeploy.deploy.signature import Bounds, Tensor
from llmdeploy.deploy.text import Encoder, Text

from .conftest import SIGNATURE, ids, write_tokenizer


def encoder(folder: Path, **changes: object) -> Encoder:
    SIGNATURE.model_copy(update=changes).save(folder)
    write_tokenizer(folder)
    return Encoder(folder)


def test_pads_to_the_longest_and_not_to_what_the_tokenizer_fixes(tmp_path: Path) -> None:
    feed = encoder(tmp_path).encode(["the train", "today"], max_length=64)
    assert feed["input_ids"].tolist() == [[2, 4, 5, 3], [2, 9, 3, 0]]
    assert feed["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


def test_pads_where_and_with_what_io_json_says(tmp_path: Path) -> None:
    inputs = (
        ids("input_ids", pad=7),
        Tensor(
            name="mask", dtype="float32", shape=("batch", "sequence"), role="attention_mask", pad=0
        ),
        ids("position_ids", pad=1),
    )
    feed = encoder(tmp_path, inputs=inputs, padding_side="left").encode(
        ["the train", "today"], max_length=64
    )
    assert feed["input_ids"].tolist() == [[2, 4, 5, 3], [7, 2, 9, 3]]
    assert feed["position_ids"].tolist() == [[0, 1, 2, 3], [1, 0, 1, 2]]
    assert feed["mask"].dtype == np.float32
    assert set(feed) == {"input_ids", "mask", "position_ids"}


def test_pairs_have_token_types(tmp_path: Path) -> None:
    inputs = (ids("input_ids"), ids("token_type_ids"))
    feed = encoder(tmp_path, inputs=inputs).encode([("the train", "today")], max_length=64)
    assert feed["input_ids"].tolist() == [[2, 4, 5, 3, 9, 3]]
    assert feed["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1]]


def test_cuts_after_max_length_with_the_special_tokens_kept(tmp_path: Path) -> None:
    feed = encoder(tmp_path).encode(["the train to geneva leaves today"], max_length=4)
    assert feed["input_ids"].tolist() == [[2, 4, 5, 3]]


def test_cuts_the_start_where_io_json_says_so(tmp_path: Path) -> None:
    words = "the train to geneva leaves today"
    made = encoder(tmp_path, truncation_side="left")
    (whole,), (found,) = (made.encodings([words], max_length=most) for most in (64, 4))
    assert found.ids == [whole.ids[0], *whole.ids[-3:]]
    (found,) = made.encodings(["the train " * 5_000 + words], max_length=8)
    assert found.ids == whole.ids[:1] + whole.ids[-7:]


def test_of_a_long_text_only_the_start_is_read(tmp_path: Path) -> None:
    (found,) = encoder(tmp_path).encodings(["the train " * 50_000], max_length=8)
    assert found.ids == [2, 4, 5, 4, 5, 4, 5, 3]
    assert len(found.overflowing) < 50


@pytest.mark.parametrize("start", [" " * 10_000, "x" * 10_000 + " ", "x" * 127 + " "])
def test_a_text_that_begins_with_few_tokens_is_read_on(tmp_path: Path, start: str) -> None:
    made = encoder(tmp_path)
    found = made.encodings([start + "the train to geneva leaves", "today"], max_length=6)
    unknown = [1] if start.strip() else []
    assert found[0].ids == [2, *unknown, 4, 5, 6, *([] if unknown else [7]), 3]
    assert found[1].ids == [2, 9, 3]


def test_tokens_of_a_text_are_all_of_them(tmp_path: Path) -> None:
    """Whatever the tokenizer's file or a call before says of where texts are cut."""
    made = encoder(tmp_path)
    assert made.ids("the " * 300) == [4] * 300
    made.encode(["the"], max_length=8)
    assert made.ids("the " * 300) == [4] * 300


def test_never_longer_than_the_graph_takes(tmp_path: Path) -> None:
    made = encoder(tmp_path, dims={"sequence": Bounds(min=4, max=5)})
    assert made.max_length == 5
    assert made.encode(["the train to geneva leaves"], max_length=64)["input_ids"].shape == (1, 5)
    assert made.encode(["today"], max_length=64)["input_ids"].shape == (1, 4)


def test_a_fixed_length_is_kept(tmp_path: Path) -> None:
    shape = (2, 8)
    inputs = (ids("input_ids", shape=shape), ids("attention_mask", shape=shape))
    made = encoder(tmp_path, inputs=inputs)
    assert made.batch == 2
    assert made.encode(["today"], max_length=64)["input_ids"].shape == (1, 8)


def test_a_cache_is_given_empty(tmp_path: Path) -> None:
    cache = Tensor(
        name="past_key.0", dtype="float32", shape=("batch", 3, "past", 8), role="past_key.0"
    )
    feed = encoder(tmp_path, inputs=(ids("input_ids"), cache)).encode(["a", "b"], max_length=64)
    assert feed["past_key.0"].shape == (2, 3, 0, 8)


@pytest.mark.parametrize(
    ("texts", "length", "says"),
    [([], 8, "no text"), (["today"], 2, "set at least 3"), ([("a", "b")], 3, "set at least 4")],
)
def test_refuses(tmp_path: Path, texts: list[str], length: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        encoder(tmp_path).encode(texts, max_length=length)


def test_an_input_that_no_text_gives_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pixel_values"):
        encoder(tmp_path, inputs=(ids("input_ids"), ids("pixel_values")))


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"model": {"type": "WordLevel", "vocab": {"a": -1}, "unk_token": "a"}}',
        json.dumps({"version": "1.0", "model": {"type": "Nothing"}}).encode(),
    ],
)
def test_a_hostile_tokenizer_is_one_line(tmp_path: Path, hostile: bytes) -> None:
    SIGNATURE.save(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(hostile)
    with pytest.raises(ConfigError) as caught:
        Encoder(tmp_path)
    assert "\n" not in str(caught.value)
    assert "tokenizer.json" in str(caught.value)


def test_a_huge_tokenizer_is_not_read(tmp_path: Path) -> None:
    SIGNATURE.save(tmp_path)
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match="more than"):
        Encoder(tmp_path)


def test_a_missing_tokenizer_says_so(tmp_path: Path) -> None:
    SIGNATURE.save(tmp_path)
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        Encoder(tmp_path)


def test_a_text_that_takes_long_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, begun, began, go_on = encoder(tmp_path), text._begun, Event(), Event()

    def slow(reader: Any, texts: Sequence[Text], size: int) -> Any:
        if texts == ["long"]:
            began.set()
            assert go_on.wait(10)
        return begun(reader, texts, size)

    monkeypatch.setattr(text, "_begun", slow)
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(made.encodings, ["long"], max_length=8)
        assert began.wait(10)
        for most in (8, 4):  # cut there too, and elsewhere
            assert len(made.encodings(["the train to geneva"], max_length=most)[0].ids) <= most
        assert made.ids("the train") == [4, 5]
        go_on.set()
        assert len(long.result()[0].ids) == 3


@pytest.mark.parametrize("bad", ["ca\udcff", ("the", "\ud800")])
def test_what_is_no_unicode_is_told_by_its_text(tmp_path: Path, bad: Text) -> None:
    made = encoder(tmp_path)
    with pytest.raises(ConfigError, match="text 2 has bytes that are not UTF-8"):
        made.encodings([("the", "train") if isinstance(bad, tuple) else "the", bad], max_length=8)
