import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy import generate
from llmdeploy.deploy.chat import prompt
from llmdeploy.deploy.runtime import Session, load, run_texts
from llmdeploy.deploy.sampling import Sampling, choose

from .causal import write_causal
from .conftest import WORDS, write_tokenizer


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_causal(tmp_path_factory.mktemp("causal"))


PROMPTS = ["the train to geneva leaves today", "the", "today the train"]


def from_scratch(session: Session, text: str, count: int) -> list[int]:
    """Greedy tokens without a cache: the whole text is run again for each."""
    tokens = list(session.encoder.whole([text])[0].ids)
    start = len(tokens)
    for _ in range(count):
        length = len(tokens)
        row = np.array([tokens], np.int64)
        empty = np.zeros((1, 2, 0, 8), np.float32)
        feed = {
            "input_ids": row,
            "attention_mask": np.ones_like(row),
            "position_ids": np.arange(length, dtype=np.int64)[None],
            "past_key_0": empty,
            "past_value_0": empty,
        }
        tokens.append(int(session.run(feed)["logits"][0, -1].argmax()))
    return tokens[start:]


def words(session: Session, tokens: list[int]) -> str:
    return session.encoder.decode(tokens)


@pytest.mark.parametrize("chunk", [1, 2, 3, 512])
def test_cache_batch_and_chunks_change_nothing(
    causal: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate.Decoder.prefill, "__defaults__", (chunk,))
    with load(causal) as session:
        wanted = [words(session, from_scratch(session, text, 12)) for text in PROMPTS]
        together = session.generate(PROMPTS, Sampling(max_new_tokens=12))
        alone = [session.generate([text], Sampling(max_new_tokens=12))[0] for text in PROMPTS]
    assert [written.text for written in together] == wanted
    assert [written.text for written in alone] == wanted
    assert {(written.tokens, written.finish) for written in together} == {(12, "length")}


def test_streaming_gives_the_same_text_in_pieces(causal: Path) -> None:
    with load(causal) as session:
        whole = session.generate(PROMPTS[:1], Sampling(max_new_tokens=9))[0]
        pieces = list(session.stream(PROMPTS[0], Sampling(max_new_tokens=9)))
    assert "".join(pieces) == whole.text
    assert len(pieces) > 3


def test_a_stop_string_ends_the_text_and_is_not_in_it(causal: Path) -> None:
    with load(causal) as session:
        whole = session.generate(PROMPTS[:1], Sampling(max_new_tokens=9))[0].text
        stop = whole[len(whole) // 3 : len(whole) // 3 + 5]
        cut = session.generate(PROMPTS[:1], Sampling(max_new_tokens=9, stop=(stop,)))[0]
        pieces = list(session.stream(PROMPTS[0], Sampling(max_new_tokens=9, stop=(stop,))))
    assert cut.text == whole[: whole.find(stop)] == "".join(pieces)
    assert cut.finish == "stop"


def test_an_end_token_ends_its_row_alone(causal: Path, tmp_path: Path) -> None:
    with load(causal) as session:
        first = from_scratch(session, PROMPTS[0], 8)
    folder = tmp_path / "ends"
    folder.mkdir()
    for path in causal.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [first[4]]}))
    with load(folder) as session:
        rows = session.generate(PROMPTS, Sampling(max_new_tokens=8))
        assert rows[0].tokens == first.index(first[4]) + 1
        assert rows[0].finish == "stop"
        for text, row in zip(PROMPTS, rows, strict=True):
            assert row == session.generate([text], Sampling(max_new_tokens=8))[0]


def test_the_checkpoint_s_repetition_penalty_holds_where_none_is_asked_for(
    causal: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "penalised"
    shutil.copytree(causal, folder)
    (folder / "generation_config.json").write_text(json.dumps({"repetition_penalty": 5.0}))

    def written(path: Path, penalty: float | None = None) -> list[str]:
        sampling = Sampling(max_new_tokens=9, repetition_penalty=penalty)
        with load(path) as session:
            return [each.text for each in session.generate(PROMPTS, sampling)]

    plain, penalised = written(causal), written(folder)
    assert penalised == written(causal, 5.0) != plain
    assert written(folder, 1.0) == plain


def test_what_is_drawn_depends_on_no_batch(causal: Path) -> None:
    sampling = Sampling(max_new_tokens=9, temperature=2.0, seed=1)
    found: list[list[str]] = []
    for batch in (2, 4):
        with load(causal, batch=batch) as session:
            found.append([each.text for each in session.generate(["the train"] * 4, sampling)])
    assert found[0] == found[1]
    assert len(set(found[0])) == 4


def test_the_end_of_the_cache_ends_the_text(causal: Path) -> None:
    with load(causal) as session:
        written = session.generate(["the " * 40], Sampling(max_new_tokens=1000))[0]
        assert written.finish == "length"
        assert written.tokens == 64 - 42 + 1
        with pytest.raises(ConfigError, match="82 tokens, the graph takes 64"):
            session.generate(["the " * 80])


def test_a_long_prompt_beside_it_ends_no_text(causal: Path) -> None:
    prompts = [" ".join(["the"] * 60), "today", "the train", "to geneva"]
    sampling = Sampling(max_new_tokens=30)
    with load(causal) as session:
        together = session.generate(prompts, sampling)
        alone = [session.generate([text], sampling)[0] for text in prompts]
    assert [written.tokens for written in together] == [3, 30, 30, 30]
    assert together == alone


def test_answers_of_a_causal_graph_are_texts(causal: Path) -> None:
    (answer,) = run_texts(causal, ["the train"])
    assert set(answer) == {"text", "tokens", "finish"}


def test_a_seed_gives_the_same_text_again(causal: Path) -> None:
    def draw(seed: int) -> str:
        sampling = Sampling(max_new_tokens=20, temperature=1.5, seed=seed)
        return session.generate(PROMPTS[:1], sampling)[0].text

    with load(causal) as session:
        assert draw(1) == draw(1)
        assert len({draw(seed) for seed in range(5)}) > 1


LOGITS = np.log(np.array([0.5, 0.25, 0.15, 0.1]))


def frequencies(**options: Any) -> list[float]:
    random = np.random.default_rng(0)
    sampling = Sampling(**{"temperature": 1.0, **options})
    drawn = [choose(LOGITS, [0], sampling, random) for _ in range(4000)]
    return [drawn.count(token) / 4000 for token in range(4)]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [0.5, 0.25, 0.15, 0.1]),
        ({"top_k": 2}, [2 / 3, 1 / 3, 0, 0]),
        ({"top_p": 0.7}, [2 / 3, 1 / 3, 0, 0]),
        ({"top_p": 0.76}, [5 / 9, 2.5 / 9, 1.5 / 9, 0]),
        ({"temperature": 0.0}, [1, 0, 0, 0]),
        ({"temperature": 1e-310}, [1, 0, 0, 0]),
        ({"temperature": 0.5}, [0.7246, 0.1812, 0.0652, 0.029]),
        ({"repetition_penalty": 2.0}, [1 / 3, 1 / 3, 0.2, 0.1333]),
    ],
)
def test_tokens_are_drawn_as_often_as_they_should_be(
    options: dict[str, Any], wanted: list[float]
) -> None:
    if "repetition_penalty" in options:  # log .5 doubled is log .25: then all is scaled by 4/3
        assert np.exp(2 * LOGITS[0]) == pytest.approx(0.25)
    np.testing.assert_allclose(frequencies(**options), wanted, atol=0.03)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"top_p": 0},
        {"max_new_tokens": 0},
        {"top_k": -1},
        {"repetition_penalty": 1e-320},
        {"repetition_penalty": 1e308},
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Sampling(**options)


def test_a_conversation_by_the_tokenizers_template(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    config = {"chat_template": template, "eos_token": {"content": "</s>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    messages = [{"role": "user", "content": "hi"}]
    assert prompt(tmp_path, messages) == "<user>hi</s><assistant>"
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content | tojson }}")
    assert prompt(tmp_path, messages) == '"hi"'


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
        "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
        "{% if tools is not none or documents is not none %}tools{% endif %}no tools",
        "{{ messages | tojson(separators=(',', ':'), sort_keys=True) }}",
        "{{ messages | tojson(false, 2) }}",
        "{{ unk_token }}{{ messages[0].content }}{{ eos_token }}",
    ],
)
def test_a_template_gives_what_transformers_gives(tmp_path: Path, template: str) -> None:
    transformers = pytest.importorskip("transformers")
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    tokens = {"unk_token": "[UNK]", "eos_token": {"content": "[SEP]", "__type": "AddedToken"}}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **tokens}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    messages = [{"role": "user", "content": "hé <b>"}]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    options = {"tokenize": False, "add_generation_prompt": True}
    assert prompt(tmp_path, messages) == tokenizer.apply_chat_template(messages, **options)


@pytest.mark.parametrize(
    "hostile",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{{ raise_exception('roles must alternate') }}",
        "{% for",
    ],
)
def test_a_hostile_template_is_one_error(tmp_path: Path, hostile: str) -> None:
    (tmp_path / "chat_template.jinja").write_text(hostile)
    with pytest.raises(ConfigError, match="chat template fails"):
        prompt(tmp_path, [{"role": "user", "content": "hi"}])


def test_no_template_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no chat template"):
        prompt(tmp_path, [])


def test_the_vocabulary_is_the_graphs() -> None:
    assert len(WORDS) == 10
