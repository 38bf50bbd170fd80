"""What export refuses, in one line each, before anything is written at a final name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from llmdeploy import ConfigError, Error, ExportError
from llmdeploy.toolchain.exporter import export, reference
from safetensors.numpy import load_file, save_file

Change = Callable[[Path], None]


@pytest.fixture
def checkpoint(tiny_bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "checkpoint"))


def refused(checkpoint: Path, tmp_path: Path, **options: object) -> Error:
    folder = tmp_path / "export"
    folder.mkdir()
    with pytest.raises(Error) as caught:
        export(str(checkpoint), folder, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return caught.value


def change(checkpoint: Path, edit: Callable[[dict[str, np.ndarray]], object]) -> None:
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


WEIGHT = "bert.encoder.layer.1.attention.self.query.weight"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_weights_are_named(checkpoint: Path, tmp_path: Path, bad: float) -> None:
    change(checkpoint, lambda tensors: tensors[WEIGHT].__setitem__((3, 3), bad))
    error = refused(checkpoint, tmp_path)
    assert f"tensor {WEIGHT} holds NaN or infinity" in str(error)
    assert isinstance(error, ExportError)


def test_a_tensor_that_is_not_there(checkpoint: Path, tmp_path: Path) -> None:
    change(checkpoint, lambda tensors: tensors.__delitem__(WEIGHT))
    assert f"the checkpoint has no tensor {WEIGHT}" in str(refused(checkpoint, tmp_path))


def test_a_tensor_of_another_shape(checkpoint: Path, tmp_path: Path) -> None:
    change(checkpoint, lambda tensors: tensors.update({WEIGHT: np.zeros((32, 8), np.float32)}))
    assert "is [32, 8] where config.json asks for [32, 32]" in str(refused(checkpoint, tmp_path))


def test_truncated_weights(checkpoint: Path, tmp_path: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "truncated" in str(refused(checkpoint, tmp_path))


def test_only_a_pickle(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    assert "a pickle that can run code" in str(refused(checkpoint, tmp_path))


def test_remote_code(checkpoint: Path, tmp_path: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model"}
    (checkpoint / "config.json").write_text(json.dumps(config))
    (checkpoint / "evil.py").write_text("import pathlib; pathlib.Path('ran').touch()")
    error = refused(checkpoint, tmp_path)
    assert isinstance(error, ConfigError)
    assert "--trust-remote-code" in str(error)
    assert not Path("ran").exists()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_type": "no-such-model"}'])
def test_a_config_that_cannot_be_read(checkpoint: Path, tmp_path: Path, content: str) -> None:
    (checkpoint / "config.json").write_text(content)
    assert "config.json" in str(refused(checkpoint, tmp_path))


def test_an_unknown_task(checkpoint: Path, tmp_path: Path) -> None:
    error = refused(checkpoint, tmp_path, task="telepathy")
    assert "no task 'telepathy', auto or one of" in str(error)
    assert error.exit_code == 2


def test_a_task_the_model_has_not(checkpoint: Path, tmp_path: Path) -> None:
    error = refused(checkpoint, tmp_path, task="image-classification")
    assert "transformers has no image-classification class of bert" in str(error)
    assert "fill-mask" in str(error)


def test_an_unknown_dtype(checkpoint: Path, tmp_path: Path) -> None:
    assert "no dtype 'int3'" in str(refused(checkpoint, tmp_path, dtype="int3"))


def test_an_untrained_head(checkpoint: Path, tmp_path: Path) -> None:
    """A classifier asked to fill masks has no weights for it: none are made up."""
    error = refused(checkpoint, tmp_path, task="fill-mask")
    assert "the checkpoint has no tensor cls.predictions" in str(error)


def test_an_untrained_pooler_is_dropped(checkpoint: Path, tmp_path: Path) -> None:
    change(checkpoint, lambda t: [t.__delitem__(name) for name in list(t) if "pooler" in name])
    folder = tmp_path / "export"
    folder.mkdir()
    results = export(str(checkpoint), folder, task="feature-extraction")
    assert "pooler_output dropped: its weights are not in the checkpoint" in results["notes"]


def test_what_a_checkpoint_s_own_code_raises_is_one_line(checkpoint: Path) -> None:
    ids = np.array([[10_000, 1]])
    told = r"cannot be run by torch: IndexError: index out of range.*Bert\w+ \(modeling_bert"
    with pytest.raises(ExportError, match=told) as caught:
        list(reference(str(checkpoint), [{"input_ids": ids}], task="fill-mask"))
    assert "\n" not in str(caught.value)


def test_an_architecture_that_cannot_be_traced(tmp_path: Path) -> None:
    """Mamba loops over the sequence in Python."""
    import torch
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(hidden_size=16, num_hidden_layers=1, state_size=4, vocab_size=50)
    MambaForCausalLM(config).save_pretrained(tmp_path / "checkpoint")
    error = refused(tmp_path / "checkpoint", tmp_path)
    assert isinstance(error, ExportError)
    assert "fixes sequence to the traced 3" in str(error)
    assert "docs/coverage.md" in error.mend
    assert "--" not in error.mend
