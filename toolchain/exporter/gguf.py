"""GGUF checkpoints: llama.cpp's one file, its blocks unpacked one tensor at a time.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Names, permutations and block
types are transformers' and the `gguf` package's; nothing of them is written again here.
"""

import importlib.util
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ... import ExportError, MissingError

_SAFETENSORS = "convert it: AutoModel.from_pretrained(DIR, gguf_file=NAME).save_pretrained(OUT)"


def only(source: Path) -> Path | None:
    """The GGUF file of a checkpoint: the path itself, or the one in a folder without safetensors.

    Raises:
        ExportError: there are several.
    """
    if source.suffix == ".gguf":
        return source
    found = sorted(source.glob("*.gguf"))
    if not found or any(source.glob("*.safetensors")):
        return None
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ExportError(f"several GGUF files: {names}", where=source, mend="name one of them")
    return found[0]


@contextmanager
def unpacked(path: Path) -> Generator[Path]:
    """A folder with the configuration and tokenizer of the file, as transformers saves them.

    Raises:
        MissingError: the `gguf` package is not installed.
        ExportError: transformers cannot read the file's architecture or tokenizer.
    """
    from transformers import AutoConfig, AutoTokenizer

    if importlib.util.find_spec("gguf") is None:
        raise MissingError("a GGUF file needs the package gguf", mend="pip install gguf")
    where = str(path.parent)
    with TemporaryDirectory() as name:
        folder = Path(name)
        try:
            config = AutoConfig.from_pretrained(where, gguf_file=path.name)
            AutoTokenizer.from_pretrained(where, gguf_file=path.name).save_pretrained(name)
        except Exception as error:
            raise ExportError(
                f"transformers cannot read it: {str(error).splitlines()[0]}",
                where=path,
                mend=_SAFETENSORS,
            ) from error
        _tidy(config)
        config.save_pretrained(name)
        yield folder


def _tidy(config: Any) -> None:
    """Make it the configuration of an unpacked model; without a word, of a language model."""
    from transformers import AutoModelForCausalLM

    if hasattr(config, "quantization_config"):
        del config.quantization_config
    auto: Any = AutoModelForCausalLM
    if not config.architectures and type(config) in auto._model_mapping:
        config.architectures = [auto._model_mapping[type(config)].__name__]


class Blocks:
    """A GGUF file as the one source of a model's parameters."""

    def __init__(self, path: Path, model: Any) -> None:
        from transformers import modeling_gguf_pytorch_utils as legacy
        from transformers.integrations.gguf.reader import read_gguf_metadata
        from transformers.integrations.gguf.utils import is_gguf_arch_supported

        self._path = path
        metadata, stored = read_gguf_metadata(str(path))
        architecture = metadata["general.architecture"]
        if is_gguf_arch_supported(architecture):
            # transformers reads these by another route, whose blocks stay packed
            raise ExportError(
                f"GGUF files of {architecture} are not taken", where=path, mend=_SAFETENSORS
            )
        settings = {"config": model.config.to_dict()}
        made = legacy.TENSOR_PROCESSORS.get(architecture, legacy.TensorProcessor)
        self._processor = made(config=settings["config"])
        self._names = legacy.get_gguf_hf_weights_map(model, self._processor)
        there = {*stored, *(name.removesuffix(".weight") for name in stored)}
        found = {mine for name, mine in self._names.items() if name in there}
        self.targets: Sequence[str] = tuple(found)

    def tensors(self, model: Any) -> Iterator[tuple[str, Any]]:
        """The parameters by name, unpacked one at a time, in float32."""
        import gguf
        import numpy as np
        import torch

        merged: dict[str, Any] = {}
        parsed = {"config": model.config.to_dict(), "tensors": merged}
        for packed in gguf.GGUFReader(str(self._path)).tensors:
            made = self._processor.process(
                weights=gguf.dequantize(packed.data, packed.tensor_type),
                name=packed.name,
                tensor_key_mapping=self._names,
                parsed_parameters=parsed,
            )
            if made.name in self._names:
                yield self._names[made.name], torch.from_numpy(np.array(made.weights))
        yield from merged.items()  # experts, put together from several tensors
