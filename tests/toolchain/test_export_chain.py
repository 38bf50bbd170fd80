"""Export by hub id, weights left in the checkpoint all the way to a run, and what the CLI refuses."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from llmdeploy import __version__
from llmdeploy.deploy.signature import Bounds, Signature
from llmdeploy.toolchain import cli
from llmdeploy.toolchain.exporter import reference
from llmdeploy.toolchain.replay import replay

REVISION = "0123456789abcdef0123456789abcdef01234567"
IDS = np.array([[2, 7, 9, 3]])
FEED = {"input_ids": IDS, "attention_mask": np.ones_like(IDS), "token_type_ids": IDS * 0}


@pytest.fixture
def hub(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A hub's cache as another machine filled it: blobs by sha256, a snapshot of links, five shards."""
    from transformers import AutoModelForSequenceClassification

    saved, home = tmp_path / "saved", tmp_path / "cache" / "models--acme--tiny"
    shutil.copytree(tiny_bert, saved)
    (saved / "model.safetensors").unlink()
    settings = json.loads((saved / "tokenizer_config.json").read_text())
    settings["model_max_length"] = 8  # less than what the test asks for
    settings["truncation_side"] = "left"
    (saved / "tokenizer_config.json").write_text(json.dumps(settings))
    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    model.save_pretrained(saved, max_shard_size="25KB")
    snapshot = home / "snapshots" / REVISION
    for folder in (home / "blobs", home / "refs", snapshot):
        folder.mkdir(parents=True)
    (home / "refs" / "main").write_text(REVISION)
    for path in saved.iterdir():
        name = hashlib.sha256(path.read_bytes()).hexdigest()
        path.rename(home / "blobs" / name)
        (snapshot / path.name).symlink_to(f"../../blobs/{name}")
    assert len(list(snapshot.glob("model-*.safetensors"))) == 5
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return "acme/tiny", snapshot


def here(folder: Path, rest: str = "") -> list[str]:
    (folder / "llmdeploy.toml").write_text(rest or "[build]\n")
    return ["-c", str(folder / "llmdeploy.toml"), "-w", str(folder / "artifacts"), "-q"]


def test_five_shards_by_hub_id(hub: tuple[str, Path], tmp_path: Path) -> None:
    name, snapshot = hub
    arguments = ["--max-batch", "4", "--max-sequence", "16", "--opset", "21"]
    assert cli.call(["export", name, *arguments, *here(tmp_path)]) == 0
    folder = tmp_path / "artifacts" / "export"
    results = json.loads((folder / "stage.json").read_text())["results"]
    assert (results["self_contained"], results["opset"]) == (True, 21)
    assert not any(path.is_symlink() for path in folder.iterdir())
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    assert (model.producer_name, model.producer_version) == ("llmdeploy", __version__)
    assert {one.version for one in model.opset_import if not one.domain} == {21}
    signature = Signature.load(folder)
    assert signature.dims == {"batch": Bounds(max=4), "sequence": Bounds(max=16)}
    assert (signature.truncation_side, signature.padding_side) == ("left", "right")
    wanted = reference(str(snapshot), [FEED], task="text-classification")
    for one, other in zip(replay(folder / "model.onnx", [FEED]), wanted, strict=True):
        np.testing.assert_allclose(one["logits"], np.asarray(other["logits"], float), rtol=1e-4)


@pytest.mark.parametrize("way", ["reference", pytest.param("in-place", marks=pytest.mark.slow)])
def test_weights_that_stay_where_they_are(
    tiny_bert: Path, tmp_path: Path, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Path(shutil.copytree(tiny_bert, tmp_path / "checkpoint"))
    rest = f'[model]\ncheckpoint = "checkpoint"\nweights = "{way}"\n'
    place = here(tmp_path, rest + '[build]\nbackends = ["onnxruntime"]\n')
    artifacts = tmp_path / "artifacts"
    assert cli.call(["build", *place]) == 0
    exported = json.loads((artifacts / "export" / "stage.json").read_text())["results"]
    assert (exported["weights"], exported["self_contained"]) == (way, False)
    assert not list((artifacts / "export").glob("*.safetensors"))
    assert cli.call(["inspect", str(artifacts / "export")]) == 0
    assert cli.call(["diff", str(artifacts / "export"), str(artifacts / "optimize")]) == 0
    assert (checkpoint / "model.onnx").exists() == (way == "in-place")
    checkpoint.rename(tmp_path / "moved")
    capsys.readouterr()
    assert cli.call(["build", *place]) == 3
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "the weights model.safetensors are gone" in said[0]
    assert cli.call(["run", str(artifacts), "good news", "--json"]) == 0  # engines are whole
    assert json.loads(capsys.readouterr().out)["results"]


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--task", "telepathy"], 2, "no task 'telepathy'"),
        (["--opset", "99"], 2, "less than or equal to 25"),
        (["--dtype", "int3"], 2, "--dtype"),
        (["--weights", "teleport"], 2, "--weights"),
        (["--max-batch", "0"], 2, "--max-batch"),
        (["--task", "image-classification"], 3, "no image-classification class of bert"),
    ],
)
def test_options_that_make_no_sense(
    tiny_bert: Path,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.call(["export", str(tiny_bert), *arguments, *here(tmp_path)]) == code
    refused(tmp_path, capsys, line)


@pytest.mark.parametrize(("bad", "code"), [("pickle", 3), ("auto_map", 2), ("no weights", 3)])
def test_checkpoints_that_are_refused(
    tiny_bert: Path, tmp_path: Path, bad: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Path(shutil.copytree(tiny_bert, tmp_path / "checkpoint"))
    weights, config = checkpoint / "model.safetensors", checkpoint / "config.json"
    if bad == "pickle":
        weights.rename(checkpoint / "pytorch_model.bin")
    elif bad == "no weights":
        weights.unlink()
    else:
        settings = json.loads(config.read_text()) | {"auto_map": {"AutoModel": "evil.Evil"}}
        config.write_text(json.dumps(settings))
    assert cli.call(["export", str(checkpoint), *here(tmp_path)]) == code
    refused(tmp_path, capsys, bad)


def refused(folder: Path, capsys: pytest.CaptureFixture[str], word: str) -> None:
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(said) == 1, said
    assert said[0].startswith("error: ")
    assert word in said[0]
    assert not (folder / "artifacts" / "export").exists()
