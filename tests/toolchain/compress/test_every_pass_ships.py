"""Every way to compress, from checkpoint to bundle: parity, both local backends, verification."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from llmdeploy.toolchain import cli

#: Pass -> its options, for a model of 32 channels.
PASSES = {
    "prune": "neurons = 0.5\nheads = 0.5\nmultiple = 8",
    "sparsify": "",
    "low-rank": "ratio = 0.2\nmultiple = 2",
    "vocabulary": "",
    "recover": "minutes = 0.05",
}
BOTH = 'backends = ["onnxruntime", "tensorrt-rtx"]\n'
GATE = '[gate]\nallow-unexecuted = ["parity.engine/tensorrt-rtx"]\n'


def written(folder: Path, checkpoint: Path, texts: Path, passes: tuple[str, ...]) -> Path:
    tables = "".join(f'[[passes]]\nuse = "{name}"\n' for name in ("clean", "fold", "fuse", "clean"))
    for name in passes:
        budget = "max-drop = 0.9"
        tables += f'[[passes]]\nuse = "{name}"\n{PASSES[name]}\n{budget}\n'
    config = folder / "llmdeploy.toml"
    config.write_text(
        f'[model]\ncheckpoint = "{checkpoint}"\n{tables}[calibration]\nsamples = "{texts}"\n'
        f"count = 32\nmax-length = 32\nmax-drop = 0.5\n[build]\n{BOTH}{GATE}"
    )
    return config


@pytest.mark.slow
@pytest.mark.parametrize(
    "passes",
    [("prune",), ("sparsify",), ("low-rank",), ("vocabulary",), tuple(PASSES)],
    ids=["prune", "sparsify", "low-rank", "vocabulary", "all of them"],
)
@pytest.mark.parametrize("kind", ["encoder", "causal"])
def test_it_ships_as_a_dense_model_does(
    kind: str,
    passes: tuple[str, ...],
    tiny_bert: Path,
    some_texts: Path,
    tmp_path: Path,
    give_llama: Callable[..., Path],
) -> None:
    checkpoint = tiny_bert if kind == "encoder" else give_llama(tmp_path / "checkpoint")
    config, space = written(tmp_path, checkpoint, some_texts, passes), tmp_path / "a"
    assert cli.call(["release", "-q", "-c", str(config), "-w", str(space)]) == 0
    report = json.loads((space / "report.json").read_text())
    assert report["verdict"] == "pass"
    assert {"compress", "engine/onnxruntime"} <= {line["name"] for line in report["parity"]}
    assert [step["name"] for step in report["passes"] if step["name"] in PASSES] == list(passes)
    for backend in ("onnxruntime", "tensorrt-rtx"):
        assert (space / "engine" / backend / "stage.json").is_file()
    (bundle,) = (space / "bundle" / "edge").glob("*.tar.zst")
    assert cli.call(["verify", "-q", str(bundle)]) == 0
    assert cli.call(["run", "-q", str(bundle), "the release"]) == 0
