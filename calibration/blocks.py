"""A graph in blocks of consecutive nodes, so that a model larger than memory runs a part at a time.

A cut may lie anywhere in the order of the nodes: what is made before it and read after it is what
has to be kept. Cuts are put where that is least, an edge of a transformer's layer.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

import onnx

#: Weights of a block, at most, in bytes, where not one node alone has more.
BLOCK_BYTES = 256 << 20
#: The weights of a model with no more of them than this need no cut.
WHOLE_BYTES = 1 << 30
#: Channels of all wanted tensors of a block, at most: each is kept of every token of a batch.
CHANNELS = 32768


@dataclass(frozen=True)
class Block:
    """Nodes by their places in the graph; what they read of earlier blocks, and later ones of them.

    `outputs` are wanted tensors that are made here, `gives` what a later block reads.
    """

    nodes: tuple[int, ...]
    reads: tuple[str, ...]
    gives: tuple[str, ...]
    outputs: tuple[str, ...]


def is_large(path: Path) -> bool:
    """Whether the weights of a model in a file are more than `WHOLE_BYTES`."""
    model = onnx.load(path, load_external_data=False)
    return sum(map(_size, model.graph.initializer)) > WHOLE_BYTES


def split(
    model: onnx.ModelProto,
    wanted: Sequence[str],
    together: Sequence[tuple[str, str]] = (),
    size: int | None = None,
    widths: Mapping[str, int] | None = None,
) -> tuple[Block, ...]:
    """The blocks that the wanted tensors need, in order.

    `together` are pairs of tensors that no cut parts. Else a block has at most `size` bytes of
    weights, by default `BLOCK_BYTES` where the model has more than `WHOLE_BYTES`; and at most
    `CHANNELS` of the `widths` that are known of wanted tensors.
    """
    graph = _Graph.of(model, wanted)
    if size is None:
        size = BLOCK_BYTES if sum(graph.weights) > WHOLE_BYTES else sys.maxsize
    loads = [
        max(weight / size, sum(widths.get(name, 0) for name in made) / CHANNELS if widths else 0.0)
        for weight, made in zip(graph.weights, graph.makes, strict=True)
    ]
    cuts = [0, *_cuts(graph, together, loads), len(graph.nodes)]
    return tuple(_block(graph, start, end, wanted) for start, end in pairwise(cuts))


@dataclass(frozen=True)
class _Graph:
    """The nodes that are needed, in order: what each reads and makes, and its weights' bytes."""

    nodes: tuple[int, ...]
    reads: tuple[frozenset[str], ...]
    makes: tuple[frozenset[str], ...]
    weights: tuple[int, ...]

    @classmethod
    def of(cls, model: onnx.ModelProto, wanted: Sequence[str]) -> "_Graph":
        """What leads to the wanted tensors."""
        sizes = {each.name: _size(each) for each in model.graph.initializer}
        needed, chosen = set(wanted), list[int]()
        for index in range(len(model.graph.node) - 1, -1, -1):
            node = model.graph.node[index]
            if needed.intersection(node.output):
                chosen.append(index)
                needed |= _read(node)
        chosen.reverse()
        reads = [_read(model.graph.node[index]) for index in chosen]
        return cls(
            tuple(chosen),
            tuple(each - sizes.keys() for each in reads),
            tuple(frozenset(filter(None, model.graph.node[i].output)) for i in chosen),
            tuple(sum(sizes[name] for name in each & sizes.keys()) for each in reads),
        )

    def made(self) -> dict[str, int]:
        """Where each tensor is made."""
        return {name: place for place, names in enumerate(self.makes) for name in names}

    def used(self) -> dict[str, int]:
        """Where each tensor is last read."""
        return {name: place for place, names in enumerate(self.reads) for name in names}


def _cuts(
    graph: _Graph, together: Sequence[tuple[str, str]], loads: Sequence[float]
) -> Iterator[int]:
    """Places before which the graph is cut: in the later half of what fits, where least is kept.

    `loads` are the parts of a block that each node fills. Where the later half would part a pair
    the earlier one is cut; where that would too, the block is larger.
    """
    made, used = graph.made(), graph.used()
    pairs = [(made[a], made[b]) for a, b in together if a in made and b in made]
    count = len(graph.nodes)
    cost, whole = [0] * (count + 1), [True] * (count + 1)
    for name, place in made.items():
        for cut in range(place + 1, used.get(name, place) + 1):
            cost[cut] += 1
    for first, last in pairs:
        whole[first + 1 : last + 1] = [False] * (last - first)
    start, held = 0, 0.0
    for place, load in enumerate(loads):
        if held + load > 1 and place > start:
            cuts = [cut for cut in range(start + 1, place + 1) if whole[cut]]
            later = [cut for cut in cuts if cut > start + (place - start) // 2]
            if cuts:
                start = min(later or cuts, key=lambda cut: (cost[cut], -cut))
                held = sum(loads[start:place])
                yield start
        held += load


def _block(graph: _Graph, start: int, end: int, wanted: Sequence[str]) -> Block:
    made, used = graph.made(), graph.used()
    read = frozenset[str]().union(*graph.reads[start:end])
    here = [name for name, place in made.items() if start <= place < end]
    return Block(
        nodes=graph.nodes[start:end],
        reads=tuple(sorted(name for name in read if made.get(name, end) < start)),
        gives=tuple(sorted(name for name in here if used.get(name, 0) >= end)),
        outputs=tuple(name for name in wanted if start <= made.get(name, -1) < end),
    )


def model_of(model: onnx.ModelProto, block: Block, kinds: Mapping[str, int]) -> onnx.ModelProto:
    """A block as a model; `kinds` are the element types of what it reads."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:], made.graph.output[:], made.graph.initializer[:]
    made.graph.node.extend(model.graph.node[index] for index in block.nodes)
    read = frozenset[str]().union(*map(_read, made.graph.node))
    made.graph.initializer.extend(each for each in model.graph.initializer if each.name in read)
    taken = [each for each in model.graph.input if each.name in read]
    del made.graph.input[:]
    made.graph.input.extend(taken)
    for name in block.reads:
        made.graph.input.append(onnx.helper.make_tensor_value_info(name, kinds[name], None))
    for name in dict.fromkeys((*block.outputs, *block.gives)):
        made.graph.output.append(onnx.ValueInfoProto(name=name))
    return made


def _read(node: onnx.NodeProto) -> frozenset[str]:
    """What a node reads, and what the bodies it holds read from outside."""
    names = set(filter(None, node.input))
    for attribute in node.attribute:
        for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            names |= _captured(body)
    return frozenset(names)


def _captured(body: onnx.GraphProto) -> set[str]:
    own = {each.name for each in (*body.input, *body.initializer)}
    own |= {name for node in body.node for name in node.output}
    read = set[str]().union(*map(_read, body.node)) | {each.name for each in body.output}
    return read - own


def _size(tensor: onnx.TensorProto) -> int:
    bits = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * 8
    return prod(tensor.dims) * bits // 8
