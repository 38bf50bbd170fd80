import json
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors
from llmdeploy import ConfigError, ExportError, MissingError
from llmdeploy.toolchain import checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return tmp_path


def test_a_folder_is_where_it_is(folder: Path) -> None:
    assert checkpoint.locate(str(folder)) == folder


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", "not an id!", ""])
def test_a_folder_that_is_not_there(name: str) -> None:
    with pytest.raises(ConfigError, match="folder"):
        checkpoint.locate(name)


def test_a_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        checkpoint.locate(str(tmp_path))


def test_a_file_is_no_checkpoint(folder: Path) -> None:
    with pytest.raises(ConfigError, match="is a file"):
        checkpoint.locate(str(folder / "config.json"))


def fail(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)


def test_offline_names_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, errors.LocalEntryNotFoundError("offline"))
    with pytest.raises(MissingError, match="HF_HUB_OFFLINE"):
        checkpoint.locate("acme/model")


def test_offline_for_real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingError, match="out of reach"):
        checkpoint.locate("acme/model")


class Response:
    """The little that the hub's errors ask of one."""

    headers: dict[str, str] = {}  # noqa: RUF012
    status_code = 404
    request = None


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (errors.RepositoryNotFoundError, "the hub has no model acme/model at v2"),
        (errors.RevisionNotFoundError, "the hub has no model acme/model at v2"),
        (errors.GatedRepoError, "acme/model is gated, accept its terms"),
    ],
)
def test_the_hub_says_no(monkeypatch: pytest.MonkeyPatch, kind: type, line: str) -> None:
    fail(monkeypatch, kind("no", response=Response()))
    with pytest.raises(ConfigError, match=line):
        checkpoint.locate("acme/model", "v2")


def test_the_hubs_folder_is_taken(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    asked: dict[str, object] = {}

    def download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert checkpoint.locate("acme/model", "v2") == folder
    assert asked["revision"] == "v2"
    assert not {"*.bin", "*.pt"} & set(asked["allow_patterns"])  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused_before_it_is_imported(folder: Path, name: str) -> None:
    (folder / name).write_text(json.dumps({"auto_map": {"AutoModel": "evil.Model"}}))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ConfigError, match="trust-remote-code"):
        checkpoint.refuse_code(folder, trust_remote_code=False)
    checkpoint.refuse_code(folder, trust_remote_code=True)


def test_a_pickle_alone_is_refused(folder: Path) -> None:
    checkpoint.refuse_pickles(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ExportError, match=r"pytorch_model\.bin, a pickle"):
        checkpoint.refuse_pickles(folder)


def test_no_weights_at_all(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ExportError, match="no weights"):
        checkpoint.refuse_pickles(folder)


def test_the_digest_follows_content(folder: Path) -> None:
    before = checkpoint.digest(folder)
    assert checkpoint.digest(folder) == before
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    other = checkpoint.digest(folder)
    assert other != before
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}more")
    assert checkpoint.digest(folder) not in {before, other}


def test_a_blob_is_told_by_its_name(tmp_path: Path) -> None:
    """The hub's cache: snapshots/REVISION/model.safetensors -> ../../blobs/SHA256."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "abc").write_bytes(b"weights")
    (snapshot / "model.safetensors").symlink_to(blobs / "abc")
    before = checkpoint.digest(snapshot)
    (blobs / "abc").touch()
    assert checkpoint.digest(snapshot) == before


def test_a_broken_json_is_named(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ExportError, match=r"not JSON.*tokenizer_config\.json"):
        checkpoint.refuse_code(folder, trust_remote_code=False)


def test_what_is_hidden_and_a_workspace_are_no_part_of_it(folder: Path) -> None:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    before = checkpoint.digest(folder)
    for name in (".git/lfs/objects/ab", "artifacts/export", "work/fp16/export", "work/.lock"):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if "export" in name:
            place.mkdir()
            (place / "stage.json").write_text("{}")
            (place.parent / "report.json").write_text("{}")
        else:
            place.write_bytes(b"large")
    assert checkpoint.digest(folder) == before
    (folder / "1_Pooling" / "config.json").write_text('{"mean": true}')
    assert checkpoint.digest(folder) != before


def test_a_folder_has_no_revisions(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no revision 'v2', \[model\] revision"):
        checkpoint.locate(str(folder), "v2")
