"""What weights with zeros take in a bundle: by Zstandard alone, packed, and as archives have them.

    python benchmarks/sparse_storage.py [SUBJECT...] [--method sparsegpt] [--count 64] [--json]

Subjects as in compress.py. Two of four weights are set to zero by `sparsify`, then the graph is
built by ONNX Runtime in float32 and in INT8. Of the engine's weights that are sparse: `zstd` is
their share that Zstandard leaves, at the archive's level; `positions` that of the values that are
not zero and two bits for the place of each; `bits` that of the values and a bit for each weight,
both by Zstandard after that; `archive` what our archive takes. `engine` is all of the engine's
folder in the archive over the same by Zstandard alone.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import zstandard
from int8_data import MissingError, Subject, write_texts
from int8_subjects import SUBJECTS
from llmdeploy.deploy import archive
from llmdeploy.passes import load
from llmdeploy.passes.store import tensors
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.config import Build, Calibration, Config, Model, PassTable
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace
from numpy.typing import NDArray

COLUMNS = ("weight_bytes", "zeros", "zstd", "positions", "bits", "archive", "engine")
#: A weight of no fewer zeros than this was made sparse.
SPARSE, SMALLEST = 0.45, 4096


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", default=["minilm"], metavar="SUBJECT")
    parser.add_argument("--method", default="sparsegpt")
    parser.add_argument("--count", type=int, default=64, help="samples")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def engine_of(subject: Subject, precision: Any, root: Path, asked: argparse.Namespace) -> Path:
    """The folder of the engine of the sparse model."""
    root.mkdir(parents=True, exist_ok=True)
    write_texts(subject.texts(), root / "texts.jsonl")
    plain = [PassTable(use=name) for name in ("clean", "fold", "fuse", "clean")]
    zeros = {"use": "sparsify", "method": asked.method, "max_drop": 0.99}
    config = Config(
        model=Model(checkpoint=subject.checkpoint(root)),
        passes=(*plain, PassTable.model_validate(zeros)),
        calibration=Calibration(
            samples=str(root / "texts.jsonl"),
            count=asked.count,
            max_length=subject.max_length,
            max_drop=0.99,
        ),
        build=Build(precision=precision),
    )
    run = Run(config, Workspace(root / "artifacts"))
    with run.workspace.locked():
        return run.folder(stages.engine(run, "onnxruntime").name)


def figures(engine: Path, aside: Path) -> dict[str, Any]:
    """The shares that the sparse weights of an engine take, stored in each way."""
    arrays = list(sparse(load(engine)))
    raw = sum(map(len, (each.tobytes() for each in arrays)))
    zeros = sum(each.size - np.count_nonzero(each) for each in arrays)
    values = b"".join(each[each != 0].tobytes() for each in arrays)
    bits = b"".join(np.packbits(each != 0).tobytes() for each in arrays)
    twos, places = (b"".join(each) for each in zip(*map(positions, arrays), strict=True))
    whole = b"".join(each.tobytes() for each in arrays)
    (aside / "weights").write_bytes(whole)
    files: dict[str, archive.Source] = {
        path.relative_to(engine).as_posix(): path for path in engine.rglob("*") if path.is_file()
    }
    plain = {name: path.read_bytes() for name, path in files.items() if isinstance(path, Path)}
    return {
        "weight_bytes": raw,
        "zeros": zeros / sum(each.size for each in arrays),
        "zstd": zstd(whole) / raw,
        "positions": (zstd(twos) + zstd(places)) / raw,
        "bits": (zstd(values) + zstd(bits)) / raw,
        "archive": packed({"weights": aside / "weights"}, aside) / raw,
        "engine": packed(files, aside) / packed(dict(plain), aside),
    }


def sparse(model: ir.Model) -> Iterator[NDArray[Any]]:
    """Weights that were made sparse, [k, n]; their bits as integers, so that -0.0 is no zero."""
    for tensor in tensors(model):
        if tensor.size < SMALLEST:
            continue
        array = tensor.numpy()
        array = array.view(f"u{array.itemsize}")
        if array.size - np.count_nonzero(array) >= SPARSE * array.size:
            yield array


def positions(array: NDArray[Any]) -> tuple[bytes, bytes]:
    """Of each four that are read together two values, and two bits for the place of each."""
    fours = np.moveaxis(array.reshape(-1, 4, array.shape[-1]), 1, 2).reshape(-1, 4)
    places = np.argsort(fours == 0, axis=1, kind="stable")[:, :2]
    pairs = np.unpackbits(places.astype(np.uint8).reshape(-1, 1), axis=1)[:, -2:]
    return np.take_along_axis(fours, places, 1).tobytes(), np.packbits(pairs).tobytes()


def zstd(data: bytes) -> int:
    return len(zstandard.ZstdCompressor(level=archive.LEVEL).compress(data))


def packed(files: dict[str, archive.Source], aside: Path) -> int:
    archive.pack(files, aside / "x.tar.zst")
    return (aside / "x.tar.zst").stat().st_size


def line(row: dict[str, Any], names: Sequence[str] = COLUMNS) -> str:
    head = f"{row['model']:8} {row['method']:24}"
    if "reason" in row:
        return f"{head} {row['reason']}"
    return f"{head} {'  '.join(f'{name} {row[name]:.4g}' for name in names)}"


def main() -> None:
    asked, found = arguments(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as temporary:
        for subject in (each for each in SUBJECTS if each.name in asked.subjects):
            for precision in ("fp32", "int8"):
                row = {"model": subject.name, "method": f"2:4 {asked.method} {precision}"}
                try:
                    engine = engine_of(subject, precision, Path(temporary) / subject.name, asked)
                    found.append(row | figures(engine, Path(temporary)))
                except MissingError as error:
                    found.append(row | {"reason": str(error)})
                print(line(found[-1]), file=sys.stderr if asked.json else sys.stdout, flush=True)
    if asked.json:
        print(json.dumps({"rows": found, "environment": {"cores": os.cpu_count(), "seed": 0}}))


if __name__ == "__main__":
    main()
