"""io.json: names, dtypes, symbolic shapes and roles of a graph's inputs and outputs."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from .. import ConfigError
from .misfit import misfit

FILE = "io.json"


class Record(BaseModel):
    """A frozen record of io.json; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Tensor(Record):
    """One input or output.

    `dtype` is numpy's name. A dimension is an integer or a name that `Signature.dims` bounds.
    `role` is the transformers argument it feeds (`input_ids`, `attention_mask`, `past_key.3`, ...)
    or, of an output, what it is (`logits`, `sentence_embedding`, `present_value.3`, ...). `pad`
    fills the places that batching adds.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    role: str
    pad: int | None = None


class Bounds(Record):
    """The least and most a named dimension can be; `max` is None where nothing limits it."""

    min: int = 1
    max: int | None = None


class Signature(Record):
    """What goes into a graph and what comes out.

    A task of several graphs (`encoder`, `decoder`) has `components` and no tensors of its own:
    each is a folder of that name with its own model.onnx and io.json.
    """

    schema_version: Literal[1] = 1
    task: str
    architecture: str = ""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    dims: dict[str, Bounds] = {}
    labels: tuple[str, ...] = ()
    padding_side: Literal["left", "right"] = "right"
    truncation_side: Literal["left", "right"] = "right"
    components: tuple[str, ...] = ()

    def input(self, role: str) -> Tensor | None:
        """The input with this role, None when the graph has none."""
        return next((tensor for tensor in self.inputs if tensor.role == role), None)

    def output(self, role: str) -> Tensor | None:
        """The output with this role, None when the graph has none."""
        return next((tensor for tensor in self.outputs if tensor.role == role), None)

    def save(self, folder: Path) -> None:
        """Write io.json into `folder`."""
        text = self.model_dump_json(indent=2, exclude_defaults=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Signature":
        """Read `folder`'s io.json.

        Raises:
            ConfigError: it is missing, not JSON, or does not fit the schema.
        """
        path = folder / FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ConfigError("no io.json", where=folder, mend="run `llmdeploy export`") from error
        except ValidationError as error:
            what = f"io.json does not fit: {misfit(error)}"
            raise ConfigError(what, where=path, mend="export again") from error
