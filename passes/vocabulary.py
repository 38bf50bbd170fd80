"""The passes `vocabulary` and `keep-ids`: rows of tokens that never occur go, of tied heads too."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
import onnx_ir as ir
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from .. import PassError
from .contract import Contract
from .coupling import Place, followed
from .facts import attribute_int, is_constant
from .infer import infer
from .kinds import Pass
from .linear import array_of, drop_unused
from .regroup import Coarsen, LostError
from .remove import narrow

#: Nodes through which token ids stay token ids.
_THROUGH = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Flatten", "Expand")
_COMPARED = ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual")


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Vocabulary(Pass):
    """Takes tokens out of the vocabulary that occur less than `least` times in the samples.

    Special tokens, bytes and single characters stay, and what kept tokens are merged from: text
    whose tokens all stay has the same tokens and the same outputs, other text falls back to
    smaller pieces. tokenizer.json is written anew. `common` keeps so many of the first ids besides,
    which training puts in the order of frequency. `max_drop` bounds the loss on held-out samples.
    """

    least: Annotated[int, Field(ge=1)] = 1
    common: Annotated[int, Field(ge=0)] = 0
    max_drop: Annotated[float, Field(gt=0)] = 0.01

    contract: ClassVar[Contract] = Contract("lossy", {})
    #: The toolchain counts tokens in samples, in the stage `compress`.
    fitted: ClassVar[bool] = True
    #: Ways to ask for it that `tune` tries, where fewer bytes are asked for.
    tunable: ClassVar[Mapping[str, Mapping[str, tuple[object, ...]]]] = {
        "common": {"common": (20000, 10000, 0)}
    }

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Refuse to work on nothing: without samples and a tokenizer nobody knows what occurs.

        Raises:
            PassError: always.
        """
        del model
        raise PassError("vocabulary needs samples", mend="run it in a release: llmdeploy build")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class KeepIds(Pass):
    """Keeps the rows of `ids`, ascending, where the inputs `tokens` pick; id `ids[i]` becomes i."""

    ids: tuple[int, ...]
    tokens: tuple[str, ...]

    contract: ClassVar[Contract] = Contract("lossy", {})

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Take the other rows away, and the columns of a head that gives one logit a token.

        Raises:
            PassError: no table is picked from by ids alone, or something else reads them.
        """
        infer(model)
        picks, compared = readers(model, self.tokens)
        size = rows_of(picks)
        places = _places(model, picks, size)
        stays = np.zeros(size, bool)
        stays[list(self.ids)] = True
        masks = {place: stays[labels] for place, labels in places.items()}
        narrow(model, masks, picks)
        for node in compared:
            _renamed(model, node, self.ids)
        drop_unused(model)
        infer(model)
        return ir.passes.PassResult(model, modified=len(self.ids) < size)


def wide_outputs(model: ir.Model, tokens: Sequence[str]) -> dict[str, int]:
    """Outputs with one place a token, and the axis that those are on."""
    size = rows_of(readers(model, tokens)[0])
    return {value.name or "": axis for value, axis in _ends(model, size)}


def vocabulary_size(model: ir.Model, tokens: Sequence[str]) -> int:
    """How many rows the tables have that ids pick from."""
    return rows_of(readers(model, tokens)[0])


def rows_of(picks: Sequence[ir.Node]) -> int:
    """The one number of rows of the tables that nodes pick from.

    Raises:
        PassError: there is none, or there are tables of several sizes.
    """
    found = {int(node.inputs[0].shape.numpy()[0]) for node in picks if _shape_of(node)}  # pyright: ignore[reportOptionalMemberAccess]
    if len(found) != 1:
        raise PassError("there is no one table that token ids pick from", mend="leave it out")
    return found.pop()


def _shape_of(node: ir.Node) -> bool:
    return node.inputs[0] is not None and node.inputs[0].shape is not None


def readers(model: ir.Model, tokens: Sequence[str]) -> tuple[list[ir.Node], list[ir.Node]]:
    """The nodes that pick rows by ids, and those that compare ids with a number."""
    picks, compared = list[ir.Node](), list[ir.Node]()
    waiting = [value for value in model.graph.inputs if value.name in tokens]
    while waiting:
        value = waiting.pop()
        for node in value.consumers():
            if _picks(node, value):
                picks.append(node)
            elif node.op_type in _THROUGH and node.inputs[0] is value:
                waiting.append(node.outputs[0])
            elif node.op_type in _COMPARED and any(map(is_constant, node.inputs)):
                compared.append(node)
            elif node.op_type not in ("Shape", "Size"):
                raise PassError(
                    f"{node.op_type} reads token ids", where=node.name or "", mend="leave it out"
                )
    return list(dict.fromkeys(picks)), list(dict.fromkeys(compared))


def _picks(node: ir.Node, ids: ir.Value) -> bool:
    table = node.inputs[0] if node.inputs else None
    first = node.op_type == "Gather" and attribute_int(node, "axis", 0) == 0
    return first and node.inputs[1] is ids and is_constant(table)


def _ends(model: ir.Model, size: int) -> Iterator[Place]:
    for value in model.graph.outputs:
        if value.shape is not None and len(value.shape) and value.shape[-1] == size:
            yield value, len(value.shape) - 1


def _places(model: ir.Model, picks: Sequence[ir.Node], size: int) -> dict[Place, np.ndarray]:
    """Where a token has a place: tables, and from the outputs back all that makes logits."""
    labels = np.arange(size, dtype=np.int64)
    try:
        places = followed(list(_ends(model, size)), labels, picks)
    except LostError as error:
        raise PassError(f"the output head cannot be followed: {error}") from error
    except Coarsen as error:
        raise PassError("the output head joins tokens", mend="leave it out") from error
    for node in picks:
        table = node.inputs[0]
        assert table is not None
        places[table, 0] = labels
        others = [each for each in table.consumers() if each not in picks]
        reached = {each for value, _ in places for each in _made_by(value)}
        if any(each not in reached for each in others):
            raise PassError(f"{others[0].op_type} {others[0].name} reads the table of tokens too")
    return places


def _made_by(value: ir.Value) -> list[ir.Node]:
    producer = value.producer()
    return [] if producer is None else [producer]


def _renamed(model: ir.Model, node: ir.Node, ids: Sequence[int]) -> None:
    """A comparison with a token's id, which has another now; one that went is never met."""
    for index, value in enumerate(node.inputs):
        if value is None or not is_constant(value):
            continue
        tensor = ir.convenience.get_const_tensor(value)
        assert tensor is not None
        old = tensor.numpy()
        if node.op_type != "Equal":
            raise PassError(f"{node.op_type} compares token ids", where=node.name or "")
        new = np.vectorize(lambda each: ids.index(each) if each in ids else -1)(old)
        made = array_of(model.graph, new.astype(old.dtype), f"{value.name}.kept")
        node.replace_input_with(index, made)
