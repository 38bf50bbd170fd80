"""Named sizes to the shapes of each input, as an optimization profile states them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import BuildError, ConfigError

Sizes = tuple[int, int, int]
Shapes = dict[str, tuple[list[int], list[int], list[int]]]
#: A dimension that is the sum of others: TensorRT refuses a profile in which it is not.
SUMS = {"total": ("past", "sequence")}


def consistent(dims: Mapping[str, Sizes]) -> dict[str, Sizes]:
    """The sizes with every sum of others (`total = past + sequence`) put right."""
    made = dict(dims)
    for name, parts in SUMS.items():
        if name in made and all(part in made for part in parts):
            low, opt, high = (sum(made[part][index] for part in parts) for index in range(3))
            made[name] = (low, opt, high)
    return made


def phases(dims: Mapping[str, Sizes]) -> tuple[dict[str, Sizes], ...]:
    """The profile of a decode step, beside a whole one, of a graph that keeps a cache.

    A step adds one token to a cache of any length; a profile of its own lets TensorRT choose
    kernels for one row where the whole one is tuned for prompts.
    """
    past, sequence = dims.get("past"), dims.get("sequence")
    if past is None or sequence is None or sequence[0] > 1 or sequence[2] == 1:
        return ()
    return ({"sequence": (1, 1, 1)},)


def shapes(model: Path, dims: Mapping[str, Sizes]) -> Shapes:
    """[min, opt, max] shape of every input of an ONNX file.

    A dimension may be a sum of named ones, as `past + sequence`.

    Raises:
        ConfigError: an input has a dimension that `dims` does not bound.
        BuildError: the file is no ONNX model.
    """
    import onnx

    try:
        graph = onnx.load(str(model), load_external_data=False).graph
    except Exception as error:
        raise BuildError("not an ONNX model", where=model, mend=str(error)[:200]) from error
    weights = {tensor.name for tensor in graph.initializer}
    result: Shapes = {}
    for each in graph.input:
        if each.name in weights:
            continue
        sizes = [_sizes(dim, each.name, dims) for dim in each.type.tensor_type.shape.dim]
        low, opt, high = ([size[index] for size in sizes] for index in range(3))
        result[each.name] = (low, opt, high)
    return result


def _sizes(dim: object, name: str, dims: Mapping[str, Sizes]) -> Sizes:
    value, param = int(getattr(dim, "dim_value", 0)), str(getattr(dim, "dim_param", ""))
    if not param:
        if value < 1:
            raise _unbounded(name, "?", dims)
        return (value, value, value)
    parts: Sequence[str] = [part.strip() for part in param.split("+")]
    found = [dims[part] if part in dims else _number(part) for part in parts]
    if param in dims:
        found = [dims[param]]
    known = [sizes for sizes in found if sizes is not None]
    if len(known) != len(found):
        raise _unbounded(name, param, dims)
    low, opt, high = (sum(sizes[index] for sizes in known) for index in range(3))
    return (low, opt, high)


def _number(text: str) -> Sizes | None:
    return (int(text),) * 3 if text.isdecimal() else None  # type: ignore[return-value]


def _unbounded(name: str, dim: str, dims: Mapping[str, Sizes]) -> ConfigError:
    return ConfigError(
        f"dimension {dim} of input {name} has no bounds",
        where="[build.profile]",
        mend=f"add {dim} = [min, opt, max]; bounded are {', '.join(dims) or 'none'}",
    )
