"""Embeddings and output heads as int8: `[quantize] vocabulary`, done to graphs of few-bit weights.

They are a third of a small encoder and more than half of a small language model, and rounding
them by blocks of 64 costs about as much as nothing.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .. import ConfigError
from ..calibration.blockwise import Grid, Matrix, fitting, nearest, reaching, restored
from ..deploy.signature import Signature
from ..passes import load
from ..passes.check import Facts, check
from ..passes.tables import QuantizeTables, Table, tables
from ..passes.weight_only import Blocks
from ..passes.weights import apply
from . import registry
from .feeds.rolling import keeps_cache
from .int8.table import decibels
from .narrowing import home
from .replacing import replace_model
from .run import Run
from .workspace import Stage

MODEL = "model.onnx"
#: Precisions of which weights are in few bits anyway, and those where `auto` rounds tables too.
ROUNDED = ("int8", "w8a16", "w8", "int4")
AUTO = ("int8", "w8", "int4")
#: Weights of a block share a step.
BLOCK = 64
#: Rows that are rounded at once.
AT_ONCE = 4096
_TOKENS = ("input_ids", "decoder_input_ids")
Work = Callable[[str, Path], dict[str, Any]]


def rounds_tables(run: Run) -> bool:
    """Whether tables of tokens become int8.

    Raises:
        ConfigError: it was asked for where it cannot be.
    """
    asked, build = run.config.quantize.vocabulary, run.config.build
    if asked == "float":
        return False
    refusing = [name for name in build.backends if not _takes(name)]
    if asked == "auto":
        return build.precision in AUTO and not refusing
    where, mend = "[quantize] vocabulary", 'say "float", or leave it out'
    if build.precision not in ROUNDED:
        what = f"a vocabulary of int8 goes with {', '.join(ROUNDED)}, not with {build.precision}"
        raise ConfigError(what, where=where, mend=mend)
    if refusing:
        raise ConfigError(f"{refusing[0]} takes no tables of int8", where=where, mend=mend)
    return True


def _takes(backend: str) -> bool:
    return bool(getattr(registry.find("backends", backend), "tables", False))


def with_tables(run: Run, before: Stage, work: Work) -> Work:
    """A stage's work on one graph, and then its tables of tokens as int8 where they are to be."""
    if not rounds_tables(run):
        return work

    def both(graph: str, out: Path) -> dict[str, Any]:
        results = work(graph, out)
        known = Signature.load(home(run, before.name, graph))
        return {**results, **_round(known, out)}

    return both


def _round(known: Signature, out: Path) -> dict[str, Any]:
    """Round the tables of the graph in `out`; give what became of each."""
    model = load(out / MODEL)
    facts = Facts.of(model)
    names = [tensor.name for tensor in known.inputs if tensor.role in _TOKENS]
    found, left = tables(model, names, head=keeps_cache(known))
    blocks = {each: fitting(each.width, BLOCK) for each in found}
    left |= {each.tensor: "its width is of no block" for each in found if not blocks[each]}
    found = [each for each in found if blocks[each]]
    told: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=out, prefix=".tables-") as folder:
        made: dict[str, Blocks] = {}
        for index, each in enumerate(found):
            tensor = model.graph.initializers[each.tensor].const_value
            assert tensor is not None
            path = Path(folder, f"{index}.bin")
            made[each.tensor], error = _rounded(tensor, each, blocks[each], path)
            told.append(_told(each, tensor, made[each.tensor], error))
        if made:
            turned = frozenset(each.tensor for each in found if each.turned)
            model = QuantizeTables(tables=made, turned=turned)(model).model
            check(model, facts)
            replace_model(model, out)
    kept = [{"tensor": name, "reason": why} for name, why in left.items()]
    return {"tables": told, "tables_kept": kept}


def _rounded(
    tensor: ir.TensorProtocol, table: Table, block: int, path: Path
) -> tuple[Blocks, float]:
    """Levels of a table, in a file, and its steps; and the squared error relative to its power.

    Its rows are read and rounded some at a time.
    """
    grid, shape = Grid(8, block), tuple(int(size) for size in tensor.shape.numpy())
    levels = np.memmap(path, np.int8, "w+", shape=shape)
    steps = np.empty((table.width // block, table.rows), np.float32)
    squares = np.zeros(2)
    for start in range(0, table.rows, AT_ONCE):
        rows = slice(start, min(start + AT_ONCE, table.rows))
        weight = apply(tensor, partial(_part, rows=rows, turned=table.turned))
        steps[:, rows] = _steps(weight, grid, tensor.dtype.numpy())
        made = nearest(weight, steps[:, rows], grid)
        if table.turned:
            levels[:, rows] = made
        else:
            levels[rows] = made.T
        wrong = restored(made, steps[:, rows], grid) - weight
        squares += [np.square(each, dtype=np.float64).sum() for each in (wrong, weight)]
    levels.flush()
    kept = ir.ExternalTensor(
        path.name,
        0,
        path.stat().st_size,
        ir.DataType.INT8,
        shape=ir.Shape(shape),
        name=f"{table.tensor}.int8",
        base_dir=path.parent,
    )
    return Blocks(kept, steps, block), float(squares[0] / squares[1]) if squares[1] else 0.0


def _steps(weight: Matrix, grid: Grid, kind: np.dtype[Any]) -> Matrix:
    """Steps as the graph's dtype holds them, none of them 0."""
    least = np.float32(ml_dtypes.finfo(kind).tiny)
    return np.maximum(reaching(weight, grid).astype(kind).astype(np.float32), least)


def _part(array: NDArray[Any], *, rows: slice, turned: bool) -> Matrix:
    """Some rows of a table, as a copy [width, rows]."""
    part = array[:, rows] if turned else array[rows].T
    return np.array(part, np.float32, order="C", copy=True)


def _told(table: Table, tensor: ir.TensorProtocol, blocks: Blocks, error: float) -> dict[str, Any]:
    return {
        "tensor": table.tensor,
        "rows": table.rows,
        "width": table.width,
        "bytes": table.rows * table.width + blocks.steps.nbytes,
        "bytes_float": tensor.nbytes,
        "snr_db": decibels(error),
    }
