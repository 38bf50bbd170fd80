"""Parameters that a checkpoint rightly leaves out, because the model's own code gives them.

Sinusoidal position tables are such: transformers lists them as not to be missed, and fills them
in `_init_weights`. What comes out differently on a second run is a random start, and not taken.
"""

import re
from collections.abc import Iterable
from typing import Any

import torch

from .phantom import Phantoms


def compute(model: Any, missing: Iterable[str], phantoms: Phantoms) -> list[str]:
    """Give the model real values for those missing parameters that its code determines."""
    patterns = model._keys_to_ignore_on_load_missing or ()
    known = re.compile("|".join(f"({pattern})" for pattern in patterns) or r"(?!)")
    names = [name for name in missing if known.search(name)]
    found: list[str] = []
    for name in names:
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if getattr(module, leaf) in phantoms and _determined(model, module, leaf):
            found.append(name)
    return found


def _determined(model: Any, module: Any, leaf: str) -> bool:
    phantom = getattr(module, leaf)
    made = [_initialised(model, module, leaf, seed) for seed in (0, 1)]
    same = torch.equal(*made)
    setattr(module, leaf, torch.nn.Parameter(made[0], requires_grad=False) if same else phantom)
    return same


def _initialised(model: Any, module: Any, leaf: str, seed: int) -> torch.Tensor:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        real = torch.full_like(getattr(module, leaf), float(seed))
        setattr(module, leaf, torch.nn.Parameter(real, requires_grad=False))
        model._init_weights(module)
        return getattr(module, leaf).detach().clone()
