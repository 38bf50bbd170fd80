"""Tensors of the Open Inference Protocol v2, as JSON and by its binary extension.

https://github.com/kserve/open-inference-protocol and Triton's extension_binary_data.md.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import ConfigError
from ..signature import Signature, Tensor

HEADER = "inference-header-content-length"
#: Numbers that are made JSON in one go.
_PART = 4096
Arrays = dict[str, NDArray[Any]]

_NAMES = {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"} | {
    f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


def described(tensor: Tensor) -> dict[str, Any]:
    """A tensor's metadata; what is free is -1."""
    shape = [dim if isinstance(dim, int) else -1 for dim in tensor.shape]
    return {"name": tensor.name, "datatype": _NAMES[tensor.dtype], "shape": shape}


def read(body: bytes, header: str | None) -> tuple[dict[str, Any], Arrays]:
    """The request's object and its arrays.

    Raises:
        ConfigError: it is malformed.
    """
    size = len(body) if header is None else _length(header)
    if size > len(body):
        raise ConfigError(f"{HEADER} does not fit the body")
    request, rest = _object(body[:size]), memoryview(body)[size:]
    arrays: Arrays = {}
    for given in _listed(request, "inputs"):
        count = _parameters(given).get("binary_data_size")
        raw = None
        if count is not None:
            if not isinstance(count, int) or not 0 <= count <= len(rest):
                raise ConfigError("binary_data_size does not fit the body")
            raw, rest = rest[:count], rest[count:]
        name = given.get("name")
        if not isinstance(name, str) or name in arrays:
            raise ConfigError("an input without a name of its own")
        arrays[name] = _array(given, raw)
    if len(rest):
        raise ConfigError(f"{len(rest)} bytes behind the inputs")
    return request, arrays


def written(
    request: Mapping[str, Any], arrays: Arrays, about: Mapping[str, Any]
) -> tuple[bytes, int | None]:
    """The answer's body; the length of its JSON where binary data follows."""
    asked = {str(each.get("name")): each for each in _listed(request, "outputs")}
    unknown = asked.keys() - arrays.keys()
    if unknown:
        raise ConfigError(
            f"no output {sorted(unknown)[0]!r}", mend=f"there are {', '.join(arrays)}"
        )
    default = bool(_parameters(request).get("binary_data_output"))
    outputs: list[str] = []
    parts: list[bytes] = []
    for name, array in arrays.items():
        if asked and name not in asked:
            continue
        made: dict[str, Any] = {
            "name": name,
            "datatype": _NAMES[array.dtype.name],
            "shape": list(array.shape),
        }
        if _parameters(asked.get(name, {})).get("binary_data", default):
            parts.append(np.ascontiguousarray(array).tobytes())
            made["parameters"] = {"binary_data_size": len(parts[-1])}
            outputs.append(json.dumps(made))
        else:
            outputs.append(joined(made, "data", _numbers(array.ravel())))
    head = joined(about, "outputs", outputs).encode()
    return b"".join([head, *parts]), len(head) if parts else None


def rows_of(signature: Signature, arrays: Arrays) -> int | None:
    """The rows of a request that may run beside others', None where the graph forbids it."""
    if arrays.keys() != {tensor.name for tensor in signature.inputs}:
        return None  # what is no input holds for the whole request, as `logits_to_keep`
    first = {tensor.shape[:1] for tensor in (*signature.inputs, *signature.outputs)}
    sizes = {array.shape[:1] for array in arrays.values()}
    if len(first) != 1 or len(sizes) != 1:
        return None
    (dim,), (size,) = first, sizes
    return size[0] if dim and isinstance(dim[0], str) and size and size[0] else None


def joined(about: Mapping[str, Any], key: str, items: Iterable[str]) -> str:
    """An object as JSON, with a list of what is JSON already as its last value.

    A long list is so made in parts, between which other threads run: `json.dumps` lets none.
    """
    return f'{json.dumps(about)[:-1]}, "{key}": [{", ".join(items)}]}}'


def _numbers(values: NDArray[Any]) -> Iterator[str]:
    for start in range(0, len(values), _PART):
        yield json.dumps(listed(values[start : start + _PART]))[1:-1]


def listed(values: NDArray[Any]) -> list[Any]:
    """Numbers [count] as JSON has them: null for NaN and Inf, which it has not."""
    return [
        None if isinstance(value, float) and not math.isfinite(value) else value
        for value in values.tolist()
    ]


def _length(header: str) -> int:
    """A header's bytes; no body has as many as would take twenty digits."""
    if not header.isdecimal() or len(header) > 19:
        raise ConfigError(f"{HEADER} is no length")
    return int(header)


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError("the body is not JSON") from error
    if not isinstance(found, dict):
        raise ConfigError("the body is not a JSON object")
    return found


def _listed(request: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = request.get(key, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ConfigError(f"{key} is no list of objects")
    return found


def _parameters(of: Mapping[str, Any]) -> dict[str, Any]:
    found = of.get("parameters", {})
    return found if isinstance(found, dict) else {}


def _array(given: Mapping[str, Any], raw: memoryview | None) -> NDArray[Any]:
    name, shape = given.get("name"), given.get("shape")
    dtype = _DTYPES.get(str(given.get("datatype")))
    if dtype is None:
        raise ConfigError(f"input {name!r} has the datatype {str(given.get('datatype'))[:40]!r}")
    if not isinstance(shape, list) or not all(type(dim) is int and dim >= 0 for dim in shape):
        raise ConfigError(f"input {name!r} has no shape")
    try:
        if raw is not None:
            return (
                np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).reshape(shape).astype(dtype)
            )
        return _exact(given.get("data"), dtype).reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        what = f"the data of input {name!r} does not fit {dtype}{shape}"
        raise ConfigError(what[:200]) from error


def _exact(data: Any, dtype: str) -> NDArray[Any]:
    """The data as `dtype`: a fraction is no integer, and a word no number."""
    found = np.asarray(data)
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[np.dtype(dtype).kind]
    if found.size and found.dtype.kind not in kinds:
        raise TypeError(found.dtype)
    if found.size and dtype not in ("bool", "float16", "float32", "float64"):
        bounds = np.iinfo(dtype)
        if int(found.min()) < bounds.min or int(found.max()) > bounds.max:
            raise OverflowError(dtype)
    return found.astype(dtype)
