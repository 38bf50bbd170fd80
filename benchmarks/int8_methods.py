"""Ways to INT8: ours and the peers', each from the same optimised graph and the same samples."""

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from int8_data import Array, MissingError, Run
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.feeds import SampleFeeds
from llmdeploy.toolchain.run import Run as Release

#: ONNX Runtime's entropy and percentile calibrators keep every activation of every sample.
KEPT = 64
#: Presets of optimum-onnx for x86, and whether they take samples.
PRESETS = {"avx512_vnni-static": True, "avx2-static": True, "avx512_vnni-dynamic": False}


class Method:
    """A name, and what makes a file from a graph and feeds."""

    def __init__(self, name: str, make: Callable[..., None], feeds: int | None = None) -> None:
        self.name, self._make, self._feeds = name, make, feeds

    def make(self, graph: Path, feeds: SampleFeeds, folder: Path) -> tuple[Path, dict[str, Any]]:
        """The INT8 file, and how long it took on how many samples."""
        taken = [*feeds.fit, *feeds.held_out]
        if self._feeds is not None:
            taken = taken[: -(-self._feeds // len(next(iter(taken[0].values()))))]
        path, started = folder / f"{self.name.replace(' ', '-')}.onnx", time.perf_counter()
        self._make(graph, path, taken)
        samples = sum(len(next(iter(feed.values()))) for feed in taken)
        return path, {"seconds": round(time.perf_counter() - started, 1), "samples": samples}


class Feeds:
    """Feeds as ONNX Runtime's quantiser reads them."""

    def __init__(self, feeds: Sequence[Mapping[str, Array]]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> dict[str, Array] | None:
        feed = next(self._left, None)
        return None if feed is None else dict(feed)

    def __len__(self) -> int:
        return 0


def uniform(feeds: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """Feeds padded to one width, of one batch size."""
    size = max(len(feed["input_ids"]) for feed in feeds)
    whole = [feed for feed in feeds if len(feed["input_ids"]) == size]
    width = max(feed["input_ids"].shape[1] for feed in whole)

    def padded(array: Array) -> Array:
        flat = array.ndim == 2
        return np.pad(array, ((0, 0), (0, width - array.shape[1]))) if flat else array

    return [{name: padded(array) for name, array in feed.items()} for feed in whole]


def stackable(method: str, feeds: Sequence[Mapping[str, Array]]) -> Sequence[Mapping[str, Array]]:
    """What one of ONNX Runtime's calibrators can take: all but min-max stack what they see."""
    return feeds if method == "MinMax" else uniform(feeds)


def static(method: str) -> Callable[..., None]:
    """onnxruntime.quantization.quantize_static, per channel, by one of its calibrators."""

    def make(graph: Path, path: Path, feeds: Sequence[Mapping[str, Array]]) -> None:
        from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static

        quantize_static(
            graph,
            path,
            Feeds(stackable(method, feeds)),
            calibrate_method=CalibrationMethod[method],
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )

    return make


def dynamic(graph: Path, path: Path, feeds: Sequence[Mapping[str, Array]]) -> None:
    """onnxruntime.quantization.quantize_dynamic, per channel; it needs no samples."""
    del feeds
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(graph, path, per_channel=True, weight_type=QuantType.QInt8)


def nncf(python: str) -> Callable[..., None]:
    """nncf.quantize for transformers, in the environment of that interpreter."""

    def make(graph: Path, path: Path, feeds: Sequence[Mapping[str, Array]]) -> None:
        elsewhere([python, script("nncf"), str(graph)], feeds, path)

    return make


def optimum(python: str, preset: str) -> Callable[..., None]:
    """A preset of optimum-onnx, in the environment of that interpreter."""

    def make(graph: Path, path: Path, feeds: Sequence[Mapping[str, Array]]) -> None:
        elsewhere([python, script("optimum"), preset, str(graph)], uniform(feeds), path)

    return make


def script(peer: str) -> str:
    return str(Path(__file__).parent / f"int8_peer_{peer}.py")


def elsewhere(command: list[str], feeds: Sequence[Mapping[str, Array]], path: Path) -> None:
    """Run a command that takes a folder of feeds and the file to write behind its own words."""
    with tempfile.TemporaryDirectory() as folder:
        for index, feed in enumerate(feeds):
            np.savez(Path(folder) / f"{index:05}.npz", **feed)
        whole = [*command, folder, str(path)]
        done = subprocess.run(whole, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise MissingError(lines[-1][:200])


def methods(nncf_python: str | None, optimum_python: str | None = None) -> list[Method]:
    """Every peer; NNCF and optimum's presets only where an interpreter with them is named."""
    found = [
        Method("onnxruntime min-max", static("MinMax")),
        Method("onnxruntime percentile", static("Percentile"), KEPT),
        Method("onnxruntime entropy", static("Entropy"), KEPT),
        Method("onnxruntime dynamic", dynamic, 0),
    ]
    if optimum_python:
        found += [
            Method(f"optimum {preset}", optimum(optimum_python, preset), KEPT if feeds else 0)
            for preset, feeds in PRESETS.items()
        ]
    return [*found, Method("nncf", nncf(nncf_python))] if nncf_python else found


@contextmanager
def session(path: Path, threads: int) -> Iterator[Run]:
    """An ONNX file on ONNX Runtime as its makers would run it."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, threads
    opened = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in opened.get_outputs()]
    wanted = {each.name for each in opened.get_inputs()}

    def run(feed: Mapping[str, Array]) -> dict[str, Array]:
        taken = {name: array for name, array in feed.items() if name in wanted}
        return dict(zip(names, opened.run(names, taken), strict=True))

    yield run


def ours(release: Release) -> tuple[AbstractContextManager[Run], dict[str, Any]]:
    """Our engine on ONNX Runtime, through the stages a user runs."""
    built = stages.engine(release, "onnxruntime")
    made = release.stages["quantize"].results
    seconds = sum(release.stages[name].seconds for name in ("calibrate", "quantize"))
    facts = {
        "seconds": round(seconds, 1),
        "samples": release.stages["calibrate"].results["samples"],
        "int8_share": made["int8_share"],
        "held_out_cosine": made["mean_cosine_holdout"],
    }
    return OnnxRuntime().runner(release.folder(built.name)), facts
