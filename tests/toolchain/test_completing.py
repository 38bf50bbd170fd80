"""Ready feeds of token ids are given what follows from them, and nothing else."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from llmdeploy import ConfigError
from llmdeploy.deploy.signature import Signature, Tensor
from llmdeploy.toolchain import cli
from llmdeploy.toolchain.feeds.completing import completed, vocabulary_of

TOKENS = ("batch", "sequence")
CACHE = ("batch", 2, "past", 8)


def known(**shapes: tuple[int | str, ...]) -> Signature:
    inputs = [
        Tensor(name=f"in.{role}", role=role, shape=shape, dtype="int64")
        for role, shape in shapes.items()
    ]
    cache = [
        Tensor(name=role, role=role, shape=CACHE, dtype="float16")
        for role in ("past_key.0", "past_value.0")
    ]
    return Signature(task="text-generation", inputs=(*inputs, *cache), outputs=())


CAUSAL = known(
    input_ids=TOKENS, attention_mask=("batch", "total"), position_ids=TOKENS, token_type_ids=TOKENS
)


@given(
    arrays.arrays(
        np.int64, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.integers(0, 2**31)
    )
)
def test_tokens_alone_are_enough(ids: np.ndarray) -> None:
    made = completed(CAUSAL, {"in.input_ids": ids})
    assert list(made["in.attention_mask"].ravel()) == [1] * ids.size
    assert not made["in.token_type_ids"].any()
    assert (made["in.position_ids"] == np.arange(ids.shape[1])).all()
    for name in ("past_key.0", "past_value.0"):
        assert made[name].shape == (len(ids), 2, 0, 8)
        assert made[name].dtype == np.float16
    assert {each.name for each in CAUSAL.inputs} == set(made)


def test_positions_count_real_tokens() -> None:
    mask = np.array([[0, 0, 1, 1], [1, 1, 1, 0]])
    made = completed(CAUSAL, {"in.input_ids": np.ones((2, 4), np.int64), "in.attention_mask": mask})
    assert made["in.position_ids"].tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]


def test_what_is_given_stays() -> None:
    positions = np.array([[7, 8]])
    made = completed(
        CAUSAL, {"in.input_ids": np.ones((1, 2), np.int64), "in.position_ids": positions}
    )
    assert made["in.position_ids"] is positions


def test_a_feed_without_ids_is_left_for_the_graph_to_complain_of() -> None:
    feed = {"in.position_ids": np.ones((1, 4), np.int64)}
    assert completed(CAUSAL, feed) == feed


def test_an_array_that_is_no_input_is_refused() -> None:
    feed = {"in.input_ids": np.ones((1, 2), np.int64), "labels": np.ones(1)}
    with pytest.raises(ConfigError, match=r"labels is no input: they are in\.input_ids"):
        completed(CAUSAL, feed)


def test_ids_beyond_the_vocabulary_are_refused(tmp_path: Path) -> None:
    assert vocabulary_of(tmp_path) is None
    (tmp_path / "config.json").write_text('{"vocab_size": 7, "text_config": {"vocab_size": 9}}')
    assert vocabulary_of(tmp_path) == 9
    ids = {"in.input_ids": np.array([[3, 9]])}
    assert completed(CAUSAL, ids, 10)["in.input_ids"].max() == 9
    with pytest.raises(ConfigError, match="ids 3 to 9 of 9 tokens"):
        completed(CAUSAL, ids, 9)


def test_numbers_of_the_same_kind_become_the_inputs() -> None:
    ids, mask = np.ones((1, 2), np.int32), np.ones((1, 2), bool)
    made = completed(CAUSAL, {"in.input_ids": ids, "in.attention_mask": mask})
    assert made["in.input_ids"].dtype == made["in.attention_mask"].dtype == np.int64


@pytest.mark.parametrize(
    ("ids", "mask", "why"),
    [
        (np.ones(3, np.int64), None, "in.input_ids has 1 dimensions, its input 2"),
        (np.ones((2, 3, 4), np.int64), None, "has 3 dimensions"),
        (np.ones((2, 3)), None, "is float64, its input int64"),
        (np.ones((2, 3), np.int64), np.ones((2, 2), np.int64), "the mask is"),
        (np.ones((2, 3), np.int64), np.array([[1, 0, 0], [0, 0, 0]]), "1 of 2 samples"),
        (np.ones((2, 0), np.int64), None, "2 of 2 samples"),
        (np.array([[1, -5]]), None, "ids -5 to 1"),
        (np.array([[1, 2**63]], np.uint64), None, "9223372036854775808, which is no int64"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    ids: np.ndarray, mask: np.ndarray | None, why: str
) -> None:
    feed = (
        {"in.input_ids": ids} if mask is None else {"in.input_ids": ids, "in.attention_mask": mask}
    )
    with pytest.raises(ConfigError, match=why):
        completed(CAUSAL, feed)


def test_what_follows_from_nothing_is_left_for_the_graph_to_ask_for() -> None:
    asks = known(input_ids=TOKENS, bbox=("batch", "sequence", 4))
    assert "in.bbox" not in completed(asks, {"in.input_ids": np.ones((1, 2), np.int64)})


def test_a_language_model_is_built_from_token_ids_in_an_empty_folder(
    give_llama: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = give_llama(tmp_path / "checkpoint")
    ids = np.random.default_rng(0).integers(5, 60, (64, 9))
    np.savez(tmp_path / "samples.npz", input_ids=ids)
    (tmp_path / "llmdeploy.toml").write_text(
        f'[model]\ncheckpoint = "{checkpoint}"\n[calibration]\nsamples = "samples.npz"\n'
    )
    where = ["-c", str(tmp_path / "llmdeploy.toml"), "-w", str(tmp_path / "artifacts"), "-q"]
    assert cli.call(["build", "--int8", *where]) == 0
