"""Gates: a measured value against the limit a release sets; not measured is never passed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Status = Literal["pass", "fail", "not-executed"]
Bound = Literal["min", "max"]


@dataclass(frozen=True)
class Gate:
    """One question a release must answer; `value` is None where nothing was measured."""

    name: str
    limit: float
    value: float | None
    status: Status
    reason: str = ""
    mend: str = ""
    bound: Bound = "min"
    allowed: bool = False

    @property
    def holds(self) -> bool:
        """Whether a release may ship as far as this gate is concerned."""
        return self.status == "pass" or (self.status == "not-executed" and self.allowed)


def at_least(name: str, limit: float, value: float | None, *, reason: str, mend: str = "") -> Gate:
    """A gate that passes when `value >= limit`; `reason` says why there is no value."""
    return _gate(name, limit, value, "min", reason, mend)


def at_most(name: str, limit: float, value: float | None, *, reason: str, mend: str = "") -> Gate:
    """A gate that passes when `value <= limit`; `reason` says why there is no value."""
    return _gate(name, limit, value, "max", reason, mend)


def allow(gates: Iterable[Gate], names: Sequence[str]) -> tuple[Gate, ...]:
    """Let gates that were not executed pass by name: the gate's own, or all before a dot of it."""
    return tuple(
        replace(gate, allowed=any(_named(gate.name, name) for name in names)) for gate in gates
    )


def failures(gates: Iterable[Gate]) -> tuple[Gate, ...]:
    """The gates that stop a release."""
    return tuple(gate for gate in gates if not gate.holds)


def _gate(
    name: str, limit: float, value: float | None, bound: Bound, reason: str, mend: str
) -> Gate:
    if value is None:
        return Gate(name, limit, None, "not-executed", reason or "not measured", mend, bound)
    good = value >= limit if bound == "min" else value <= limit
    if good:
        return Gate(name, limit, value, "pass", "", "", bound)
    why = f"{value:.6g} is {'below' if bound == 'min' else 'above'} {limit:.6g}"
    return Gate(name, limit, value, "fail", why, mend, bound)


def _named(gate: str, name: str) -> bool:
    return gate == name or gate.startswith(f"{name}.")
