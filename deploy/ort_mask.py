"""Masks as the Attention kernel of ONNX Runtime takes them, made once for all layers."""

from dataclasses import dataclass, field
from math import inf, isfinite

import numpy as np
import onnx_ir as ir

from .graph import array, insert, known, made_by, scalar, static
from .ort_match import Match


@dataclass
class Masks:
    """Masks that were made, by what they were made of."""

    graph: ir.Graph
    made: dict[tuple[int, ...], ir.Value] = field(default_factory=dict[tuple[int, ...], ir.Value])
    rows: dict[tuple[int, str], ir.Value] = field(default_factory=dict[tuple[int, str], ir.Value])

    def of(self, match: Match, query: ir.Value, axis: int) -> ir.Value | None:
        """The mask with its hidden rows at -inf, a row a query along `axis` of `query`."""
        if not match.added:
            return None
        mask = self._seen(match, self._sum(match))
        if match.hidden is not None:
            mask = self._hiding(match, mask, match.hidden)
        size = query.shape[axis] if query.shape is not None else None
        if static(mask, -2) != 1 or size == 1:
            return mask
        key = (id(mask), str(size) if known([size]) else str(id(query)))
        if key not in self.rows:
            self.rows[key] = self._widened(match, mask, query, axis)
        return self.rows[key]

    def _sum(self, match: Match) -> ir.Value:
        """All that is added to the scores, added up once."""
        total = match.added[0]
        for index, value in enumerate(match.added[1:]):
            key = (id(total), id(value), 0)
            if key not in self.made:
                name = f"{match.output.name}.added.{index}"
                made = insert(match.last, "Add", [total, value], name=name)
                made.type, made.shape = value.type, _joined(total.shape, value.shape)
                self.made[key] = made
            total = self.made[key]
        return total

    def _hiding(self, match: Match, mask: ir.Value, hidden: ir.Value) -> ir.Value:
        key = (id(mask), id(hidden))
        if key not in self.made:
            name = f"{match.output.name}.hiding"
            kind = mask.dtype or ir.DataType.FLOAT
            low = array(self.graph, f"{name}.low", np.array(-np.inf, kind.numpy()))
            made = insert(match.last, "Where", [hidden, low, mask], name=name)
            made.type, made.shape = mask.type, _joined(hidden.shape, mask.shape)
            self.made[key] = made
        return self.made[key]

    def _seen(self, match: Match, mask: ir.Value) -> ir.Value:
        """Above the lowest number: the kernel takes it for -inf, and the graph gives a mean.

        -inf itself stays: in a row of the lowest number (of two masks, where both hide) it hides,
        and a guard makes 0 of a row that is nothing else.
        """
        endless = match.guarded or not _is_finite(mask)
        key = (id(mask), endless)
        if key not in self.made:
            name = f"{match.output.name}.seen"
            kind = (mask.dtype or ir.DataType.FLOAT).numpy()
            least = array(self.graph, f"{name}.least", np.array(0.9 * np.finfo(kind).min, kind))
            made = insert(match.last, "Max", [mask, least], name=name, like=mask)
            if endless:
                infinite = insert(match.last, "IsInf", [mask], name=f"{name}.infinite")
                inputs = [infinite, mask, made]
                made = insert(match.last, "Where", inputs, name=f"{name}.or", like=mask)
            self.made[key] = made
        return self.made[key]

    def _widened(self, match: Match, mask: ir.Value, query: ir.Value, axis: int) -> ir.Value:
        """The kernel does not broadcast a mask of one row over the queries."""
        name = f"{match.output.name}.mask"
        rows = insert(
            match.last,
            "Shape",
            [query],
            name=f"{name}.rows",
            attributes={"start": axis, "end": axis + 1},
        )
        one = array(self.graph, f"{name}.one", np.array([1], np.int64))
        shape = insert(
            match.last, "Concat", [rows, one], name=f"{name}.shape", attributes={"axis": 0}
        )
        return insert(match.last, "Expand", [mask, shape], name=name)


def _is_finite(mask: ir.Value) -> bool:
    """Whether a mask is known to hold no infinity: a choice between two numbers."""
    choice = made_by(mask, "Where")
    numbers = [scalar(value) for value in choice.inputs[1:]] if choice is not None else [inf]
    return all(number is not None and isfinite(number) for number in numbers)


def _joined(one: ir.Shape | None, two: ir.Shape | None) -> ir.Shape | None:
    """The shape of two that are broadcast together."""
    if one is None or two is None:
        return None
    rank = max(len(one), len(two))
    first, second = ([*[1] * (rank - len(each)), *each] for each in (one, two))
    return ir.Shape([b if a == 1 else a for a, b in zip(first, second, strict=True)])
