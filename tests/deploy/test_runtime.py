import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llmdeploy import BuildError, BundleError, ConfigError
from llmdeploy.deploy.runtime import load, run_texts

from .conftest import SIGNATURE, TEXTS, ids, write_engine


def test_embeds_each_text_as_if_alone_and_in_order(engine: Path) -> None:
    texts = [*TEXTS, "leaves", "the train to geneva", "today"]
    with load(engine, batch=2) as session:
        together = session.embed(texts)
        alone = np.concatenate([session.embed([text]) for text in texts])
    assert together.shape == (6, 4)
    np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("rows", "wanted"), [("batch", {3: 7, 12: 1}), (8, {12: 8})])
def test_a_long_text_does_not_pad_the_short_ones(
    engine: Path, rows: int | str, wanted: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph of as many rows as there are is filled up in any case: there one run is least."""
    tensors = [ids(name, shape=(rows, "sequence")) for name in ("input_ids", "attention_mask")]
    SIGNATURE.model_copy(update={"inputs": tuple(tensors)}).save(engine)
    texts = ["the"] * 4 + ["train " * 10] + ["today"] * 3
    with load(engine) as session:
        run, ran = session.run, dict[int, int]()

        def counted(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            count, width = feed["input_ids"].shape
            ran[width] = ran.get(width, 0) + count
            return run(feed)

        monkeypatch.setattr(session, "run", counted)
        found = session.embed(texts)
        assert ran == wanted
        alone = np.concatenate([session.embed([text]) for text in texts])
    assert found.shape == (8, 4)
    np.testing.assert_allclose(found, alone, rtol=1e-6, atol=1e-6)


def test_answers_are_json_values(engine: Path) -> None:
    answers = run_texts(engine, TEXTS)
    assert [list(answer) for answer in answers] == [["embedding"]] * 3
    assert all(isinstance(value, float) for value in answers[0]["embedding"])
    assert run_texts(engine, []) == []


def test_outputs_have_no_padding(engine: Path) -> None:
    with load(engine) as session:
        outputs = session.outputs(TEXTS)
    assert [one["tokens"].shape for one in outputs] == [(8, 4), (4, 4), (4, 4)]


def test_arrays_go_in_as_they_are(engine: Path) -> None:
    with load(engine) as session:
        feed = session.encoder.encode(TEXTS, max_length=16)
        outputs = session.run(feed)
        assert outputs["sentence_embedding"].shape == (3, 4)
        with pytest.raises(ConfigError, match=r"attention_mask.*missing"):
            session.run({"input_ids": feed["input_ids"]})
        with pytest.raises(ConfigError, match="'x' is unknown"):
            session.run({**feed, "x": feed["input_ids"]})
        with pytest.raises(ConfigError, match="is float32"):
            session.run({**feed, "input_ids": feed["input_ids"].astype(np.float32)})
        with pytest.raises(BundleError, match="the engine failed"):
            session.run({**feed, "input_ids": feed["input_ids"] + 1000})


def test_runs_a_workspace_a_bundle_and_its_folder(engine: Path, bundle: Path) -> None:
    wanted = run_texts(engine, TEXTS)
    assert run_texts(engine.parent.parent, TEXTS) == wanted
    assert run_texts(bundle, TEXTS) == wanted
    assert run_texts(bundle.parent, TEXTS) == wanted


def test_nothing_to_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can be run here"):
        load(tmp_path)


def test_a_broken_engine_is_one_line(tmp_path: Path) -> None:
    folder = write_engine(tmp_path / "engine")
    (folder / "model.onnx").write_bytes(b"\x08\x0a\x12")
    with pytest.raises(BuildError, match="cannot be loaded") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_needs_nothing_but_the_light_packages(engine: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from llmdeploy.deploy.hiding import hide
hide(["torch", "transformers", "onnxscript", "onnx", "onnx_ir", "polygraphy", "typer", "rich"])
from llmdeploy.deploy.runtime import run_texts
print(len(run_texts(Path({str(engine)!r}), ["today"])[0]["embedding"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "4", done.stderr
