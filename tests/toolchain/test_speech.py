"""A speech model through the chain: tiny, random, scored by the words it writes of sound."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy.labelled import answers
from llmdeploy.deploy.rules import start_ids
from llmdeploy.deploy.runtime import load
from llmdeploy.deploy.sampling import Sampling
from llmdeploy.toolchain import cli

NEW, CLIPS, MELS, FRAMES, LONGEST = 10, 4, 8, 40, 32


def whisper(size: int) -> Any:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=size,
            num_mel_bins=MELS,
            d_model=32,
            encoder_layers=1,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_source_positions=FRAMES // 2,
            max_target_positions=LONGEST,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            decoder_start_token_id=2,
        )
    )
    settings: Any = model.generation_config
    settings.no_timestamps_token_id, settings.is_multilingual = size - 1, False
    settings.return_timestamps = False
    settings.begin_suppress_tokens, settings.suppress_tokens = [3], [5, 6]
    return model


@pytest.fixture(scope="module")
def model(
    tmp_path_factory: pytest.TempPathFactory, give_tokenizer: Callable[[Path], int]
) -> tuple[Path, Any]:
    import torch

    folder = tmp_path_factory.mktemp("whisper")
    size = give_tokenizer(folder)
    torch.manual_seed(1)
    net = whisper(size).eval()
    for parameter in net.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    net.save_pretrained(folder)
    return folder, net


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sounds") / "clips.npz"
    drawn = np.random.default_rng(0).standard_normal((CLIPS, MELS, FRAMES)).astype(np.float32)
    np.savez(path, input_features=drawn)
    return path


def torch_writes(net: Any, sounds: Path) -> list[list[int]]:
    import torch

    with np.load(sounds) as file, torch.no_grad():
        ids = net.generate(
            torch.from_numpy(file["input_features"]),
            max_new_tokens=NEW,
            num_beams=1,
            do_sample=False,
        )
    return [[token for token in row if token not in (0, 2)] for row in ids.tolist()]


def test_a_release_is_scored_by_the_words_it_writes(
    model: tuple[Path, Any], sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tokenizers import Tokenizer

    folder, net = model
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    wanted = [words.decode(ids).strip() for ids in torch_writes(net, sounds)]
    assert len(set(wanted)) > 1
    (tmp_path / "said.txt").write_text("\n".join(wanted))
    (tmp_path / "llmdeploy.toml").write_text(
        f"""[model]
checkpoint = "{folder}"
[evaluation]
samples = "{sounds}"
labels = "said.txt"
metric = "wer"
max-new-tokens = {NEW}
[calibration]
samples = "{sounds}"
"""
    )
    artifacts = tmp_path / "artifacts"
    here = ["-q", "-c", str(tmp_path / "llmdeploy.toml"), "-w", str(artifacts)]
    assert cli.call(["verify", *here]) == 0
    report = json.loads((artifacts / "report.json").read_text())
    (score,) = report["scores"]
    assert (score["metric"], score["value"], score["samples"]) == ("wer", 0.0, CLIPS)
    with load(artifacts) as session, np.load(sounds) as file:
        said = session.write(dict(file), Sampling(max_new_tokens=NEW))
        with pytest.raises(ConfigError, match="takes no text"):
            session.generate(["text"])
    assert [each.text.strip() for each in said] == wanted
    capsys.readouterr()
    assert cli.call(["run", str(artifacts), "--arrays", str(sounds), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert results[0]["text"].strip().startswith(wanted[0])
    assert all(each["tokens"] < LONGEST for each in results)


def test_what_a_speech_model_is_told_first(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    said: dict[str, Any] = {"decoder_start_token_id": 1, "no_timestamps_token_id": 9}
    path.write_text(json.dumps(said))
    assert start_ids(tmp_path) == (1, 9)
    said |= {"is_multilingual": True, "lang_to_id": {"<|en|>": 3, "<|de|>": 4}}
    said |= {"task_to_id": {"transcribe": 5, "translate": 6}, "language": "de"}
    path.write_text(json.dumps(said))
    assert start_ids(tmp_path) == (1, 4, 5, 9)
    path.write_text(json.dumps({**said, "task": "translate", "language": "<|en|>"}))
    assert start_ids(tmp_path) == (1, 3, 6, 9)
    for language, what in (("xx", "'xx' is no language"), (None, "no language is named")):
        path.write_text(json.dumps({**said, "language": language}))
        with pytest.raises(ConfigError, match=what):
            start_ids(tmp_path)


@pytest.mark.parametrize("rows", [0, 2, 4])
def test_arrays_and_their_texts_must_be_as_many(tmp_path: Path, rows: int) -> None:
    samples, labels = tmp_path / "x.npz", tmp_path / "y.txt"
    np.savez(samples, x=np.zeros((rows, 2)))
    labels.write_text("a\nb\nc\n")
    with pytest.raises(ConfigError, match="3 texts for"):
        answers(samples, labels, "utf-8")
    with pytest.raises(ConfigError, match="without the texts"):
        answers(samples, None, "utf-8")
    with samples.open("wb") as file:
        np.save(file, np.zeros(rows))
    with pytest.raises(ConfigError, match=r"no \.npz of arrays"):
        answers(samples, labels, "utf-8")
    for content in (b"PK\x03\x04", b"", b"text"):
        samples.write_bytes(content)
        with pytest.raises(ConfigError, match=r"not a whole \.npz"):
            answers(samples, labels, "utf-8")
    samples.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        answers(samples, labels, "utf-8")
