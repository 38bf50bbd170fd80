"""config.pbtxt, through Triton's own protobuf: what each model of a repository takes and gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from .. import ConfigError, MissingError
from .signature import Signature, Tensor

#: numpy's dtype to Triton's.
TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bfloat16": "TYPE_BF16",
}


_Policy = Annotated[str, Field(pattern=r"^[A-Za-z][\w.-]*$")]
_Setting = Annotated[str, Field(pattern=r"^(numa-node=\d+|cpu-cores=\d+-\d+)$")]


class Options(BaseModel):
    """What a Triton repository can be asked for.

    `engine` is the backend whose engine the ensemble runs. `python_engine` has an ONNX Runtime
    engine run by Triton's Python backend, for servers that lack the onnxruntime backend.
    `delay_us` is how long a request may wait for others to be batched with. `image` is the server
    that the manifests start, `storage` where KServe finds the repository. `stages` cuts an ONNX
    Runtime engine into a pipeline of models; the devices in `gpus`, the server's `host_policies`
    (name to `numa-node=N` or `cpu-cores=A-B`) and the numbers in `stage_instances` are dealt to
    them in turn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str = "onnxruntime"
    python_engine: bool = False
    version: int = Field(default=1, ge=1)
    max_batch: int = Field(default=16, ge=1)
    max_length: int = Field(default=512, ge=1)
    delay_us: int = Field(default=500, ge=0)
    instances: int = Field(default=1, ge=1)
    stages: int = Field(default=1, ge=1, le=64)
    stage_instances: tuple[Annotated[int, Field(ge=1)], ...] = ()
    host_policies: dict[_Policy, _Setting] = {}
    kind: Literal["cpu", "gpu"] = "cpu"
    gpus: tuple[int, ...] = ()
    image: str = Field(default="nvcr.io/nvidia/tritonserver:26.07-py3", pattern=r"^[\w.:/@-]+$")
    storage: str = Field(default="", pattern=r"^[\w.:/@-]*$")


def protobuf() -> Any:
    """Triton's model_config_pb2, or MissingError with the mend."""
    try:
        from tritonclient.grpc import (  # pyright: ignore[reportMissingImports]
            model_config_pb2,
        )
    except ImportError as error:
        mend = "pip install 'llmdeploy[triton]'"
        raise MissingError("tritonclient is not installed", mend=mend) from error
    return model_config_pb2


def parse(written: str, where: object = "config.pbtxt") -> Any:
    """A configuration from what config.pbtxt holds.

    Raises:
        ConfigError: it is not one.
    """
    from google.protobuf import text_format

    try:
        return text_format.Parse(written, protobuf().ModelConfig())
    except text_format.ParseError as error:
        raise ConfigError(f"not a model configuration: {error}", where=where) from error


def text(config: Any) -> str:
    """A configuration as config.pbtxt holds it."""
    from google.protobuf import text_format

    return text_format.MessageToString(config, as_utf8=True)


def batched(signature: Signature) -> bool:
    """Whether Triton may batch: every input and output starts with the same named dimension."""
    tensors = (*signature.inputs, *signature.outputs)
    first = {tensor.shape[0] if tensor.shape else None for tensor in tensors}
    return len(first) == 1 and isinstance(next(iter(first)), str)


def max_batch(signature: Signature, options: Options) -> int:
    """The greatest batch Triton may make; 0 where the graph cannot be batched."""
    if not batched(signature):
        return 0
    bounds = signature.dims.get(str(signature.inputs[0].shape[0]))
    limit = bounds.max if bounds else None
    return min(options.max_batch, limit) if limit else options.max_batch


def engine(
    name: str,
    signature: Signature,
    options: Options,
    *,
    backend: str,
    file: str,
    settings: Mapping[str, str],
) -> Any:
    """The engine's own configuration: dynamic batching, instances, no second optimisation."""
    config = _model(name, signature, options)
    config.backend = backend
    config.default_model_filename = file
    config.input.extend(_tensors(signature, signature.inputs, protobuf().ModelInput))
    config.output.extend(_tensors(signature, signature.outputs, protobuf().ModelOutput))
    config.instance_group.append(_instances(options, options.kind))
    for key, value in settings.items():
        config.parameters[key].string_value = value
    if backend == "onnxruntime":
        config.optimization.graph.level = -1
    return config


def python(
    name: str,
    signature: Signature,
    options: Options,
    *,
    takes: Sequence[Tensor],
    gives: Sequence[Tensor],
    texts: bool,
) -> Any:
    """A model of the Python backend: TEXT and `takes` in, `gives` (ANSWER where empty) out."""
    config = _model(name, signature, options)
    config.backend = "python"
    config.default_model_filename = "model.py"
    if texts:
        config.input.append(_text("TEXT", protobuf().ModelInput, config))
    config.input.extend(_tensors(signature, takes, protobuf().ModelInput))
    config.output.extend(_tensors(signature, gives, protobuf().ModelOutput))
    if not gives:
        config.output.append(_text("ANSWER", protobuf().ModelOutput, config))
    config.instance_group.append(
        _instances(options.model_copy(update={"host_policies": {}}), "cpu")
    )
    return config


@dataclass(frozen=True)
class Part:
    """A model of an ensemble: names of its own inputs and outputs to those of the ensemble."""

    model: str
    takes: Mapping[str, str]
    gives: Mapping[str, str]


def ensemble(
    name: str,
    signature: Signature,
    options: Options,
    parts: Sequence[Part],
    *,
    texts: bool,
    answers: bool,
) -> Any:
    """TEXT or arrays in, the engine's outputs (and ANSWER) out, through `parts` in order."""
    config = _model(name, signature, options)
    config.ClearField("dynamic_batching")
    config.platform = "ensemble"
    if texts:
        config.input.append(_text("TEXT", protobuf().ModelInput, config))
    else:
        config.input.extend(_tensors(signature, signature.inputs, protobuf().ModelInput))
    config.output.extend(_tensors(signature, signature.outputs, protobuf().ModelOutput))
    if answers:
        config.output.append(_text("ANSWER", protobuf().ModelOutput, config))
    for part in parts:
        # By number, so that no request meets the parts of two versions.
        step = config.ensemble_scheduling.step.add(
            model_name=part.model, model_version=options.version
        )
        step.input_map.update(part.takes)
        step.output_map.update(part.gives)
    return config


def warm(
    config: Any, feed: Mapping[str, NDArray[Any]], signature: Signature, options: Options
) -> dict[str, bytes]:
    """Have Triton run `feed` when it loads the model; the files it reads it from, by name."""
    warmup = config.model_warmup.add()
    warmup.name = "golden"
    # A warm-up's inputs are of one request; Triton repeats it to make the batch.
    warmup.batch_size = 1 if config.max_batch_size else 0
    files: dict[str, bytes] = {}
    for tensor in signature.inputs:
        array = feed[tensor.name]
        row = array[:1] if config.max_batch_size else array
        one = warmup.inputs[tensor.name]
        one.data_type = _type(tensor)
        one.dims.extend(row.shape[1:] if config.max_batch_size else row.shape)
        one.input_data_file = f"{options.version}.{tensor.name}"
        files[one.input_data_file] = np.ascontiguousarray(row).tobytes()
    return files


def _model(name: str, signature: Signature, options: Options) -> Any:
    config = protobuf().ModelConfig(name=name, max_batch_size=max_batch(signature, options))
    config.version_policy.specific.versions.append(options.version)
    if config.max_batch_size:
        config.dynamic_batching.max_queue_delay_microseconds = options.delay_us
    return config


def _tensors(signature: Signature, tensors: Sequence[Tensor], kind: Any) -> list[Any]:
    skipped = 1 if batched(signature) else 0
    return [
        kind(
            name=tensor.name,
            data_type=_type(tensor),
            dims=[dim if isinstance(dim, int) else -1 for dim in tensor.shape[skipped:]],
        )
        for tensor in tensors
    ]


def _text(name: str, kind: Any, config: Any) -> Any:
    dims = [1] if config.max_batch_size else [-1]
    return kind(name=name, data_type=protobuf().TYPE_STRING, dims=dims)


def _type(tensor: Tensor) -> int:
    if tensor.dtype not in TYPES:
        raise ConfigError(f"Triton has no type for {tensor.dtype}", where=tensor.name)
    return protobuf().DataType.Value(TYPES[tensor.dtype])


def _instances(options: Options, kind: str) -> Any:
    group = protobuf().ModelInstanceGroup(count=options.instances)
    group.host_policy = next(iter(options.host_policies), "")
    group.kind = group.KIND_GPU if kind == "gpu" else group.KIND_CPU
    if kind == "gpu":
        group.gpus.extend(options.gpus)
    return group
