"""The pass `quantize-tables`: what has a row a token as int8, the output head's weight with it.

table -> DequantizeLinear(levels, steps), one step for a block of the width. Rows that are picked
and a head that reads the same table share its levels.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass as record
from typing import Any, ClassVar

import onnx_ir as ir
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from .. import PassError
from .contract import Contract
from .facts import is_constant
from .kinds import Pass
from .linear import array_of, drop_unused, initializer
from .opset import lift
from .sites import ends_the_graph, is_weighted, layer_of
from .vocabulary import readers
from .weight_only import Blocks

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_LEFT = "its head multiplies all tokens of a text: faster in float"


@record(frozen=True)
class Table:
    """A matrix with a row a token: [rows, width], a head's [width, rows] where `turned`."""

    tensor: str
    rows: int
    width: int
    turned: bool = False


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class QuantizeTables(Pass):
    """Puts DequantizeLinear before all that reads the named tables, `Blocks` [width, rows] each.

    Levels of the blocks lie as the table does.
    """

    tables: Mapping[str, Any]
    turned: Collection[str] = ()

    contract: ClassVar[Contract] = Contract("lossy", {})

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace every named table; the opset becomes 21 where it was lower.

        Raises:
            PassError: there is no such table, or an operator means something else in opset 21.
        """
        for name, blocks in self.tables.items():
            value = model.graph.initializers.get(name)
            if value is None:
                raise PassError(f"no table called {name!r}", mend="quantise again")
            _replace(model.graph, value, blocks, turned=name in self.turned)
        if self.tables:
            lift(model)
            drop_unused(model)
        return ir.passes.PassResult(model, modified=bool(self.tables))


def _replace(graph: ir.Graph, value: ir.Value, blocks: Blocks, *, turned: bool) -> None:
    kind, name = (value.dtype or ir.DataType.FLOAT).numpy(), value.name or "table"
    steps = blocks.steps if turned else blocks.steps.T
    levels = initializer(graph, blocks.levels, f"{name}.int8")
    scale = array_of(graph, steps.astype(kind), f"{name}.scale")
    attributes = {"axis": int(not turned), "block_size": blocks.block}
    back = ir.node("DequantizeLinear", [levels, scale], attributes, name=f"{name}.dequantize")
    out = back.outputs[0]
    out.name, out.shape, out.type = f"{name}.dequantized", value.shape, value.type
    for use in list(value.uses()):
        use.node.replace_input_with(use.idx, out)
    graph.insert_before(graph[0], back)


def tables(
    model: ir.Model, tokens: Collection[str], *, head: bool
) -> tuple[tuple[Table, ...], dict[str, str]]:
    """The tables that the inputs `tokens` pick rows of and, with `head`, those of output heads.

    Beside them those that stay as they are, each with the reason.
    """
    try:
        picks, _ = readers(model, tuple(tokens))
    except PassError as error:
        return (), {"": str(error)}
    found: dict[str, Table] = {}
    left: dict[str, str] = {}
    for value in dict.fromkeys(node.inputs[0] for node in picks):
        assert value is not None
        others = [node for node in value.consumers() if node not in picks]
        why = _refused(value, others, head=head)
        if why:
            left[value.name or ""] = why
        else:
            found[value.name or ""] = _table(value)
    heads = _heads(model) if head else ()
    return (*found.values(), *(each for each in heads if each.tensor not in found)), left


def _refused(value: ir.Value, others: Collection[ir.Node], *, head: bool) -> str:
    """Why a table of rows by tokens stays float, empty where it need not."""
    if value.dtype not in _FLOATS or value.shape is None or len(value.shape) != 2:
        return f"it is no matrix of floats but {value.dtype}"
    strange = [node for node in others if not _multiplies(node)]
    if strange:
        return f"{strange[0].op_type} {strange[0].name} reads it too"
    return _LEFT if others and not head else ""


def _multiplies(node: ir.Node) -> bool:
    """Whether a reader of a table makes logits of it: a head, or a Transpose for heads alone."""
    if node.op_type == "Transpose" and not node.domain:
        return all(map(_is_head, node.outputs[0].consumers()))
    return _is_head(node)


def _is_head(node: ir.Node) -> bool:
    return is_weighted(node) and ends_the_graph(node)


def _heads(model: ir.Model) -> Iterator[Table]:
    """Weights of output heads that nothing else reads."""
    for node in model.graph:
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        if weight is None or not is_constant(weight) or not _is_head(node):
            continue
        layer = layer_of(node)
        if layer.head and len(weight.uses()) == 1:
            yield Table(layer.weight, layer.n, layer.k, turned=not layer.transposed)


def _table(value: ir.Value) -> Table:
    assert value.shape is not None
    rows, width = (int(size) for size in value.shape.numpy())
    return Table(value.name or "", rows, width)
