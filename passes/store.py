"""ONNX files in and out: weights stay on disk on the way in, and go tensor by tensor out."""

import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from .. import ConfigError, PassError
from .weights import read

MODEL = "model.onnx"
WEIGHTS = "model.onnx.data"
#: Tensors of this many bytes or less are kept inside the .onnx file.
INLINE = 1024
#: Tensors of this many bytes or less are read on the way in: rules look at them.
READ = 8192
#: A page: what mmap wants, and a multiple of every alignment a kernel asks for.
ALIGNMENT = 4096


def load(path: Path, weights: Path | None = None) -> ir.Model:
    """Read an ONNX file, or the model.onnx of a folder; weights above 8 KB stay on disk.

    External data lies in the model's folder, or in `weights` where the caller vouches for it.

    Raises:
        ConfigError: there is no such file.
        PassError: it is not a whole ONNX model, or its external data leaves its folder, is
            missing or is too short, or a tensor of it is sparse.
    """
    path = path / MODEL if path.is_dir() else path
    if not path.is_file():
        raise ConfigError("no ONNX model", where=path, mend="give the path of an .onnx file")
    model = _read(path)
    if not model.graph.outputs:
        raise PassError("not an ONNX model", where=path, mend="export it again")
    for tensor in external_tensors(model):
        tensor.base_dir = weights or path.parent
        _verify(tensor, path, weights or path.parent)
    for value in (value for graph in model.graphs() for value in graph.initializers.values()):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes <= READ:
            value.const_value = _in_memory(tensor)
    return model


def _in_memory(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    return ir.tensor(read(tensor), dtype=tensor.dtype, name=tensor.name)


def _read(path: Path) -> ir.Model:
    try:
        proto = onnx.load(path, load_external_data=False)
        for name in _sparse(proto.graph):
            raise PassError(f"{name} is a sparse tensor", where=path, mend="store it dense")
        model = ir.from_proto(proto)
    except _UNREADABLE as error:
        cause = _cause(error)
        raise PassError(
            f"not a whole ONNX model ({type(cause).__name__}: {cause})",
            where=path,
            mend="cut off, nested or larger than protobuf reads, or not ONNX: export it again",
        ) from error
    for graph in model.graphs():
        graph.name = graph.name or "graph"  # the checker wants one, and some tools give none
    return model


_UNREADABLE = (
    DecodeError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
    ir.serde.SerdeError,
)
_SPARSE = (onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS)


def _sparse(graph: onnx.GraphProto) -> Iterator[str]:
    """The sparse weights and constants of a graph and its bodies: onnx_ir has none."""
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type in _SPARSE:
                yield node.output[0]
            for body in (attribute.g, *attribute.graphs):
                yield from _sparse(body)


def _cause(error: BaseException) -> BaseException:
    """What was wrong: onnx_ir wraps it once for each part that holds the part that is."""
    while isinstance(error, ir.serde.SerdeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every tensor of a model: initializers and tensor attributes, in subgraphs and functions."""
    for graph in (*model.graphs(), *(f.graph for f in model.functions.values())):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
        for node in graph:
            yield from _attribute_tensors(node)


def count_bytes(model: ir.Model) -> int:
    """Bytes of all tensors, each counted once however often it is used."""
    return sum({id(tensor): tensor.nbytes for tensor in tensors(model)}.values())


def _attribute_tensors(node: ir.Node) -> Iterator[ir.TensorProtocol]:
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.TENSOR:
            yield attribute.as_tensor()
        elif attribute.type == ir.AttributeType.TENSORS:
            yield from attribute.as_tensors()


def external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Every tensor whose bytes lie in another file."""
    return (tensor for tensor in tensors(model) if isinstance(tensor, ir.ExternalTensor))


def _verify(tensor: ir.ExternalTensor, model: Path, place: Path) -> None:
    """Refuse data outside its folder, and ranges its file does not have."""
    folder = Path(os.path.realpath(place))
    location = os.fspath(tensor.location)
    file = Path(os.path.realpath(folder / location))
    where = f"tensor {tensor.name} of {model}"
    if os.path.isabs(location) or ".." in Path(location).parts or not file.is_relative_to(folder):
        raise PassError(
            f"external data at {location!r} leaves the model's folder",
            where=where,
            mend="keep model and weights in one folder; this file may be hostile",
        )
    if not file.is_file():
        raise PassError(f"no external data {location!r}", where=where, mend="copy it beside it")
    status = file.stat()
    if status.st_nlink > 1:
        raise PassError(
            f"external data {location!r} has other hard links", where=where, mend="copy the file"
        )
    offset, length = tensor.offset or 0, tensor.length
    length = tensor.nbytes if length is None else length
    if offset < 0 or length != tensor.nbytes or offset + length > status.st_size:
        raise PassError(
            f"external data {location!r} holds no {tensor.nbytes} bytes at offset {offset}",
            where=where,
            mend="it is cut off, or of another model: export it again",
        )


def save(model: ir.Model, folder: Path) -> None:
    """Write model.onnx, and model.onnx.data page-aligned, holding one tensor in memory at a time.

    The same model gives the same bytes. `model` itself is left as it was.

    Raises:
        PassError: the graph alone exceeds protobuf's 2 GB, or a weight's bytes cannot be had.
        OSError: the disk is full or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with_inline_attributes(model)
        ir.save(
            model,
            folder / MODEL,
            external_data=WEIGHTS,
            size_threshold_bytes=INLINE,
            alignment=ALIGNMENT,
            align_threshold=INLINE,
        )
    except (ValueError, FileNotFoundError, ir.serde.SerdeError) as error:
        raise PassError(f"cannot be saved: {_cause(error)}", where=folder / MODEL) from error


def with_inline_attributes(model: ir.Model) -> None:
    """Take external tensors of attributes into memory: only initializers are written beside."""
    graphs = (*model.graphs(), *(f.graph for f in model.functions.values()))
    for node in (node for graph in graphs for node in graph):
        for name, attribute in list(node.attributes.items()):
            if attribute.is_ref() or attribute.type != ir.AttributeType.TENSOR:
                continue
            tensor = attribute.as_tensor()
            if isinstance(tensor, ir.ExternalTensor):
                node.attributes[name] = ir.AttrTensor(name, _in_memory(tensor))
