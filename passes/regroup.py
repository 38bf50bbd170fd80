"""A labelled axis through a Reshape: which axis has the labels afterwards."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Dim = int | ir.SymbolicDim
#: Axes of one side and of the other that hold the same elements.
Block = tuple[list[int], list[int]]


class LostError(Exception):
    """A dimension cannot be followed, and where."""


class Coarsen(Exception):  # noqa: N818 - a signal to begin again, no error
    """Units that have to be one: `one[i]` and `two[i]` are."""

    def __init__(self, one: Labels, two: Labels) -> None:
        super().__init__("units have to be joined")
        self.one, self.two = one, two

    def joined(self, labels: Labels) -> Labels:
        """The labels with those units joined, each known by its least member."""
        parent = np.arange(int(labels.max()) + 1)

        def root(label: int) -> int:
            while parent[label] != label:
                parent[label] = parent[parent[label]]
                label = int(parent[label])
            return label

        for one, two in zip(self.one.tolist(), self.two.tolist(), strict=True):
            low, high = sorted((root(one), root(two)))
            parent[high] = low
        return np.array([root(int(label)) for label in labels], np.int64)


def regroup(
    before: Sequence[Dim], after: Sequence[Dim], axis: int, labels: Labels, where: str
) -> tuple[int, Labels]:
    """The axis of `after` that bears the labels of `before`'s axis, and its labels.

    Raises:
        LostError: the axes cannot be told from each other.
        Coarsen: units would lie across axes: those of one index of the outermost axis are joined.
    """
    mine, theirs = _block(before, after, axis, where)
    shape = [int(before[each]) for each in mine]  # pyright: ignore[reportArgumentType]
    target = [int(after[each]) for each in theirs]  # pyright: ignore[reportArgumentType]
    spread = [1] * len(mine)
    spread[mine.index(axis)] = -1
    table = np.broadcast_to(labels.reshape(spread), shape).reshape(target)
    varies = [at for at in range(len(target)) if (np.diff(table, axis=at) != 0).any()]
    if not varies:
        at = max(range(len(target)), key=lambda each: target[each])
        return theirs[at], np.moveaxis(table, at, 0).reshape(target[at], -1)[:, 0]
    rows = np.moveaxis(table, varies[0], 0).reshape(target[varies[0]], -1)
    if len(varies) > 1:
        first = np.broadcast_to(rows[:, :1], rows.shape)
        known = (rows >= 0) & (first >= 0)
        raise Coarsen(first[known], rows[known])
    return theirs[varies[0]], rows[:, 0]


def _block(before: Sequence[Dim], after: Sequence[Dim], axis: int, where: str) -> Block:
    """The axes of both sides that `axis` is split into or merged with."""
    for mine, theirs in (*_blocks(before, after), *_from_the_end(before, after)):
        if axis in mine and theirs and all(isinstance(before[i], int) for i in mine):
            return mine, theirs
    raise LostError(f"the axes of Reshape {where} cannot be told")


def _from_the_end(before: Sequence[Dim], after: Sequence[Dim]) -> list[Block]:
    last, end = len(before) - 1, len(after) - 1
    blocks = _blocks(before[::-1], after[::-1])
    return [
        (sorted(last - each for each in mine), sorted(end - each for each in theirs))
        for mine, theirs in blocks
    ]


def _blocks(before: Sequence[Dim], after: Sequence[Dim]) -> list[Block]:
    """Axes with as many elements on both sides, as far as sizes tell."""
    blocks: list[Block] = []
    i = j = 0
    while i < len(before) and j < len(after):
        one, two = before[i], after[j]
        if not isinstance(one, int) or not isinstance(two, int):
            if one != two or ir.SymbolicDim(None) == one:  # heads may have been merged into it
                break
            blocks.append(([i], [j]))
            i, j = i + 1, j + 1
            continue
        mine, theirs = [i], [j]
        left, right, i, j = one, two, i + 1, j + 1
        while left != right:
            side, at = (before, i) if left < right else (after, j)
            if at >= len(side) or not isinstance(side[at], int):
                return blocks
            size = int(side[at])  # pyright: ignore[reportArgumentType]
            if left < right:
                left, i = left * size, i + 1
                mine.append(at)
            else:
                right, j = right * size, j + 1
                theirs.append(at)
        blocks.append((mine, theirs))
    return blocks
