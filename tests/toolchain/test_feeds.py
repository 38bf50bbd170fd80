"""What graphs are compared and timed on: real where it can be, and named as what it is."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import onnx.parser
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy.backend import Profile
from llmdeploy.deploy.signature import Bounds, Signature, Tensor
from llmdeploy.deploy.text import Encoder
from llmdeploy.toolchain import checks
from llmdeploy.toolchain.choosing import profile_of
from llmdeploy.toolchain.config import Build, Calibration, Config
from llmdeploy.toolchain.exporter import apart
from llmdeploy.toolchain.feeds import assets, calibration_feeds, parity_feeds, timed_feeds
from llmdeploy.toolchain.feeds.corners import corners
from llmdeploy.toolchain.feeds.drawing import draw
from llmdeploy.toolchain.feeds.encoding import Texts
from llmdeploy.toolchain.phases import phases
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace

#: The most tokens that the graph takes.
MOST = 20
AXES = ("batch", "sequence")


@pytest.fixture
def run(tmp_path: Path, give_tokenizer: Callable[[Path], int]) -> Run:
    """A run whose export is what an export leaves but its graph."""
    folder = tmp_path / "work" / "export"
    folder.mkdir(parents=True)
    give_tokenizer(folder)
    Signature(
        task="feature-extraction",
        inputs=tuple(
            Tensor(name=name, role=name, dtype="int64", shape=AXES, pad=0)
            for name in ("input_ids", "attention_mask")
        ),
        outputs=(),
        dims={"batch": Bounds(), "sequence": Bounds(max=MOST)},
    ).save(folder)
    return Run(Config(), Workspace(tmp_path / "work"))


def having(run: Run, **sections: Any) -> Run:
    return Run(run.config.model_copy(update=sections), run.workspace)


def test_without_a_tokenizer_feeds_are_drawn_and_said_to_be(run: Run) -> None:
    (run.folder("export") / "tokenizer.json").unlink()
    feeds, what = parity_feeds(run)
    assert [feed["input_ids"].shape for feed in feeds] == [(2, 16), (1, 16)]
    assert "2 feeds drawn" in what
    assert "no tokenizer" in what
    assert timed_feeds(run).keys() == {"2x16", "1x16"}


def test_several_texts_a_row_are_drawn_whatever_the_tokenizer(run: Run) -> None:
    folder = run.folder("export")
    known = Signature.load(folder)
    shaped = [
        one.model_copy(update={"shape": ("batch", "choices", "sequence")}) for one in known.inputs
    ]
    dims = {**known.dims, "choices": Bounds()}
    known.model_copy(update={"inputs": tuple(shaped), "dims": dims}).save(folder)
    feeds, what = parity_feeds(run)
    assert [feed["input_ids"].shape for feed in feeds] == [(2, 16, 16), (1, 16, 16)]
    assert "2 feeds drawn" in what
    assert timed_feeds(run).keys() == {"2x16x16", "1x16x16"}


@pytest.mark.parametrize(
    ("axis", "bounds", "size"),
    [("samples", Bounds(), 4000), ("frames", Bounds(), 160), ("frames", Bounds(max=20), 20)],
)
def test_drawn_sounds_are_as_long_as_a_feature_encoder_needs(
    tmp_path: Path, axis: str, bounds: Bounds, size: int
) -> None:
    sound = Tensor(name="x", role="input_values", dtype="float32", shape=("batch", axis))
    dims = {"batch": Bounds(), axis: bounds}
    Signature(task="ctc", inputs=(sound,), outputs=(), dims=dims).save(tmp_path)
    assert [feed["x"].shape for feed in draw(tmp_path, 0)] == [(2, size), (1, size)]


def test_texts_without_a_tokenizer_are_an_error(run: Run, some_texts: Path) -> None:
    (run.folder("export") / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        parity_feeds(having(run, calibration=Calibration(samples=str(some_texts))))


def test_as_many_batches_are_named_as_there_are(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", input_ids=np.ones((16, 4), np.int64))
    samples = Calibration(samples=str(tmp_path / "s.npz"))
    feeds, what = parity_feeds(having(run, calibration=samples), count=32, lossy=True)
    assert what == f"{len(list(feeds))} batches of {tmp_path / 's.npz'}"


def test_calibration_runs_little_padding_and_each_text_once(run: Run, tmp_path: Path) -> None:
    counts = [1, 9, 2, 15, 1, 3, 12, 2] * 8
    (tmp_path / "t.txt").write_text("\n".join("the " * count for count in counts))
    feeds = calibration_feeds(having(run, calibration=Calibration(samples=str(tmp_path / "t.txt"))))
    made = [feed["attention_mask"] for feed in (*feeds.fit, *feeds.held_out)]
    lengths = [int(length) for mask in made for length in mask.sum(1)]
    assert sorted(lengths) == sorted(count + 2 for count in counts)
    # in batches as they come it is 2.2 times
    assert sum(mask.size for mask in made) < 1.3 * sum(mask.sum() for mask in made)
    assert max(len(mask) for mask in made) == run.config.calibration.batch
    assert len(feeds.held_out) < len(feeds.fit)


def test_what_is_timed_is_named_by_its_shape(run: Run) -> None:
    for name, feed in timed_feeds(run, [(1, 8), (1, 128), (8, 128)]).items():
        assert name == "x".join(map(str, feed["input_ids"].shape))
    assert timed_feeds(run, [(1, 8), (1, 128)]).keys() == {"1x8", f"1x{MOST}"}


def test_no_more_rows_are_timed_than_the_graph_takes(run: Run) -> None:
    folder = run.folder("export")
    known = Signature.load(folder)
    dims = {**known.dims, "batch": Bounds(max=2)}
    known.model_copy(update={"dims": dims}).save(folder)
    found = timed_feeds(run, [(1, 8), (8, 8), (4, 16)])
    assert {name: feed["input_ids"].shape for name, feed in found.items()} == {
        "1x8": (1, 8),
        "2x8": (2, 8),
        "2x16": (2, 16),
    }


def test_a_call_counts_the_tokens_that_the_graph_takes(run: Run) -> None:
    encoder = Encoder(run.folder("export"))
    session: Any = SimpleNamespace(encoder=encoder, graphs={"": encoder.signature})
    (call,) = phases(session, 2, 128)
    assert (call.shape, call.tokens) == (f"2x{MOST}", 2 * MOST)
    (call,) = phases(session, 2, 8)
    assert (call.shape, call.tokens) == ("2x8", 16)


def test_the_longest_feed_takes_no_more_words_than_it_needs(run: Run) -> None:
    asked: list[int] = []

    def encode(texts: list[str], max_length: int) -> dict[str, np.ndarray]:
        asked.append(sum(map(len, texts)))
        return {name: np.ones((len(texts), max_length), np.int64) for name in ("a", "b")}

    known = Signature(task="", inputs=(), outputs=())
    profile = Profile({"batch": (1, 1, 8), "sequence": (1, 512, 1 << 20)})
    corners(cast(Texts, encode), known, ["some words"] * 8, 16, profile)
    assert max(asked) < 100_000


@pytest.mark.parametrize("sizes", [(1, 8, MOST + 1), (0, 1, 2)])
def test_a_profile_beyond_what_the_graph_takes_names_both(
    run: Run, sizes: tuple[int, int, int]
) -> None:
    with pytest.raises(ConfigError, match=rf"sequence = .*takes 1 to {MOST}, \[build\.profile\]"):
        profile_of(having(run, build=Build(profile={"sequence": sizes})))
    assert profile_of(having(run, build=Build(profile={"sequence": (1, 8, MOST)})))


def test_half_a_graph_is_held_against_torch_in_its_own_dtype(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run.folder("export")
    text = '<ir_version: 9, opset_import: ["" : 20]> g (float16[batch, 4] x) => '
    graph = onnx.parser.parse_model(text + "(float16[batch, 4] y) { y = Tanh(x) }")
    onnx.save(graph, folder / "model.onnx")
    x, y = (Tensor(name=n, role=n, dtype="float16", shape=("batch", 4)) for n in "xy")
    Signature(task="", inputs=(x,), outputs=(y,), dims={"batch": Bounds()}).save(folder)
    stage: Any = SimpleNamespace(digest="", inputs={}, results={"task": ""})
    monkeypatch.setattr(checks, "export", lambda _: stage)
    monkeypatch.setattr("llmdeploy.toolchain.checkpoint.locate", lambda *_: folder)

    def torch(_: str, feeds: Any, *__: Any, **___: Any) -> Any:
        yield from ({"y": np.tanh(feed["x"].astype(np.float32))} for feed in feeds)

    monkeypatch.setattr(apart, "reference", torch)
    (found,) = checks.export_parity(
        Run(Config.model_validate({"model": {"checkpoint": str(folder)}}), run.workspace)
    )
    assert found.results["ok"], found.results["reason"]
    assert found.results["tolerance"]["min_cosine"] == checks.SAME


def test_what_goes_with_an_engine_says_nothing_of_the_checkpoint(tmp_path: Path) -> None:
    """An engine has its own weights: weights.json beside it would send its readers elsewhere."""
    for name in ("io.json", "stage.json", "weights.json", "tokenizer.json"):
        (tmp_path / name).touch()
    assert [path.name for path in assets(tmp_path)] == ["io.json", "tokenizer.json"]
