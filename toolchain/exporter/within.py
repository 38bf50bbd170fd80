"""The outputs of a checkpoint's own modules, run by torch on one feed, by module path.

They are what an exported graph is held against inside: its nodes say of which module they are.
"""

from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...deploy.backend import Feed
from .quiet import quiet

Outputs = dict[str, NDArray[np.generic]]


def within(
    checkpoint: Path, feed: Feed, *, task: str, component: str, trust_remote_code: bool
) -> Outputs:
    """What each module gave at its first call, where that is one floating tensor, in float32.

    Raises:
        ConfigError, MissingError, ExportError: as `reference`.
    """
    from transformers import AutoConfig

    from . import gguf
    from .components import Subject, components
    from .original import arguments, load
    from .task import target

    with quiet():
        packed = gguf.only(checkpoint)
        with gguf.unpacked(packed) if packed else nullcontext(checkpoint) as home:
            config = AutoConfig.from_pretrained(str(home), trust_remote_code=trust_remote_code)
            chosen = target(home, config, task, trust_remote_code)
            model = load(checkpoint, chosen, trust_remote_code).eval()
            parts = {each.name: each.module for each in components(Subject(home, model, task))}
            return _run(parts[component], arguments(feed))


def _run(module: Any, inputs: dict[str, Any]) -> Outputs:
    import torch

    found: Outputs = {}
    with ExitStack() as hooks, torch.no_grad():
        for path, inner in _inner(module):
            hooks.callback(inner.register_forward_hook(_keeping(found, path)).remove)
        module(**inputs)
    return found


def _inner(module: Any) -> Iterator[tuple[str, Any]]:
    return ((path, each) for path, each in module.named_modules() if path)


def _keeping(found: Outputs, path: str) -> Any:
    import torch

    def hook(_: object, __: object, output: object) -> None:
        tensor = output[0] if isinstance(output, tuple) and output else output
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and path not in found:
            found[path] = tensor.float().numpy().copy()

    return hook
