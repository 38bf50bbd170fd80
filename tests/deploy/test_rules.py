"""Generation settings: what transformers' own logits processors do, token by token."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy.rules import Rules, start_id, start_ids, stop_ids

SIZE, START, NEW = 12, 2, 9
SETTINGS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "forced ends": {"forced_bos_token_id": 7, "forced_eos_token_id": 3},
    "several ends": {"forced_eos_token_id": [3, 4], "eos_token_id": [3, 4]},
    "suppressed": {"suppress_tokens": [1, 5], "begin_suppress_tokens": [6, 8]},
    "suppressed after a forced one": {"forced_bos_token_id": 7, "begin_suppress_tokens": [6, 8]},
    "bad words": {"bad_words_ids": [[5], [6, 7], [1, 2, 3], [3]]},
    "at least": {"min_length": 5},
    "at least new": {"min_new_tokens": 4},
    "no single twice": {"no_repeat_ngram_size": 1},
    "no pair twice": {"no_repeat_ngram_size": 2},
    "no triple twice": {"no_repeat_ngram_size": 3},
    "as BART's": {
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 3,
        "min_length": 4,
        "no_repeat_ngram_size": 3,
    },
}


def transformers_says(settings: dict[str, Any], prompt: list[int], new: list[int], row: Any) -> Any:
    """The processed scores of one row, by the list of processors that generate itself makes."""
    import torch
    from transformers import GenerationConfig
    from transformers.generation.utils import GenerationMixin

    config = GenerationConfig(**{"eos_token_id": 3, **settings}, max_length=len(prompt) + NEW)
    vars(config)["_eos_token_tensor"] = torch.tensor(config.eos_token_id).reshape(-1)
    mixin: Any = GenerationMixin()
    mixin.config = SimpleNamespace(is_encoder_decoder=True)
    processors = mixin._get_logits_processor(
        config, input_ids_seq_length=len(prompt), encoder_input_ids=None
    )
    ids = torch.tensor([[*prompt, *new]])
    return processors(ids, torch.tensor(row)[None])[0].numpy()


@pytest.mark.parametrize("prompt", [[START], [5, 6, 7, 5, 6]], ids=["decoder", "causal"])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_step_is_what_transformers_makes_of_it(
    tmp_path: Path, name: str, prompt: list[int]
) -> None:
    settings = SETTINGS[name]
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 3, **settings}))
    rules, rng, new = Rules.load(tmp_path), np.random.default_rng(0), list[int]()
    for step in range(NEW):
        logits = rng.standard_normal(SIZE).astype(np.float32)
        wanted = transformers_says(settings, prompt, new, logits)
        made = rules.apply(logits, prompt, new, last=step == NEW - 1)
        np.testing.assert_array_equal(made, wanted)
        new.append(int(np.argmax(made)))


def test_the_logits_given_are_left_alone() -> None:
    logits = np.ones(SIZE, np.float32)
    Rules(never=(1,)).apply(logits, [START], [], last=False)
    assert (logits == 1).all()


def test_config_json_counts_only_where_there_is_no_other(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"forced_bos_token_id": 7, "eos_token_id": 3}')
    assert Rules.load(tmp_path).first == 7
    (tmp_path / "generation_config.json").write_text('{"decoder_start_token_id": 2}')
    assert Rules.load(tmp_path).first is None
    assert start_id(tmp_path) == 2
    assert stop_ids(tmp_path) == {3}


def test_no_start(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("[]")
    with pytest.raises(ConfigError, match="no decoder_start_token_id"):
        start_id(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"bad_words_ids": 5},
        {"bad_words_ids": [[1], 5]},
        {"forced_bos_token_id": [1]},
        {"min_length": "3"},
        {"no_repeat_ngram_size": 1.5},
        {"suppress_tokens": [1, "x"]},
        {"repetition_penalty": 0},
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path: Path, settings: dict[str, Any]) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    name = next(iter(settings))
    with pytest.raises(ConfigError, match=f"do not fit: {name}.*generation_config.json"):
        Rules.load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\udcff"])
def test_settings_that_are_no_json_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "generation_config.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigError, match="not JSON"):
        Rules.load(tmp_path)


def test_tokens_beyond_the_vocabulary() -> None:
    logits = np.ones(SIZE, np.float32)
    for rules in (Rules(first=99), Rules(last=(3, 99)), Rules(first=-1)):
        with pytest.raises(ConfigError, match=r"none of the 12 there are, generation_config.json"):
            rules.apply(logits, [START], [], last=bool(rules.last))
    kept = Rules(never=(-1, 99), ends=frozenset([99]), least=9).apply(logits, [5], [], last=False)
    assert (kept == 1).all()


def test_a_token_must_be_left() -> None:
    rules = Rules(never=tuple(range(SIZE)))
    with pytest.raises(ConfigError, match="no token that may come"):
        rules.apply(np.ones(SIZE, np.float32), [START], [], last=False)


def test_languages_that_are_no_table(tmp_path: Path) -> None:
    text = (
        '{"bos_token_id": 1, "no_timestamps_token_id": 9, "is_multilingual": 1, "lang_to_id": [1]}'
    )
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ConfigError, match="no language is named"):
        start_ids(tmp_path)
