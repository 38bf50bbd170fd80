"""The door to an engine: how a graph is lowered for a backend, built by it and run on it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir as ir

Feed = Mapping[str, NDArray[np.generic]]
Run = Callable[[Feed], dict[str, NDArray[np.generic]]]


@dataclass(frozen=True)
class Profile:
    """Least, usual and greatest size of each named dimension."""

    dims: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Built:
    """What building gave: the engine's files, and facts for the report (JSON values)."""

    files: tuple[str, ...]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Takes:
    """What of an ONNX graph a backend's compiler takes, beside what its lint says of operators.

    `opsets`: the least and the greatest. `attention`: the precisions in which it runs opset 23's
    `Attention` faster than the operators that spell it; in others these stay as they are.
    """

    opsets: tuple[int, int] = (7, 28)
    attention: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Promise:
    """What a pass of a lowering promises about numbers, as the attribute `contract` of its class.

    The pass manager holds it to that as it does any pass. `tolerance` is the greatest
    |after - before| / max|before|, by dtype, of the outputs and, `by_place`, of each place.
    """

    kind: Literal["exact", "close", "lossy"]
    tolerance: Mapping[str, float] = field(default_factory=dict[str, float])
    by_place: bool = True


EXACT = Promise("exact")
#: Other order of the same sums: some units in the last place.
CLOSE = Promise("close", {"float32": 2e-5, "float16": 1e-2, "float64": 1e-12})


class Backend(Protocol):
    """One kind of engine. Stateless; made without arguments by the registry."""

    name: ClassVar[str]
    #: Precisions it can build.
    precisions: ClassVar[frozenset[str]]
    takes: ClassVar[Takes]

    def missing(self) -> str | None:
        """Why an engine cannot be built here with the mend, None when it can."""
        ...

    def unexecutable(self) -> str | None:
        """Why an engine cannot be executed here, None when it can."""
        ...

    def lowering(self, precision: str) -> Sequence["ir.passes.PassBase"]:
        """Passes from the neutral graph to this backend's fastest form of the same numbers."""
        ...

    def build(
        self, model: Path, folder: Path, profile: Profile, options: Mapping[str, object]
    ) -> Built:
        """Build `folder`'s engine from a lowered ONNX file.

        Raises:
            MissingError: something needed is not on this machine.
            ConfigError: an option this backend does not honour.
            BuildError: the engine could not be built.
        """
        ...

    def runner(self, folder: Path) -> AbstractContextManager[Run]:
        """Open a built engine; raises MissingError where it cannot be executed."""
        ...
