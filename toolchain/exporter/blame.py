"""Which module and operator stopped a trace or a run, read off the exception."""

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from ... import ExportError

_FIXED = re.compile(r"^\s+(\w+) = (\d+)$", re.MULTILINE)
_OPERATOR = re.compile(r"\b(?:aten|torchvision|transformers)[.:]+\w+(?:\.\w+)?")
_FIXED_MEND = (
    "no option helps: torch.export takes no such architecture with dynamic shapes,"
    " docs/coverage.md has those that export"
)
_MEND = "another --task or --opset, a newer transformers, or attn_implementation in config.json"


def explain(module: nn.Module, error: BaseException) -> ExportError:
    """One line: what torch could not do, at which operator, in which module."""
    chain = list(_chain(error))
    text, where = "\n".join(str(one) for one in chain), _where(module, chain)
    fixed = _FIXED.search(text)
    if fixed:
        return ExportError(
            f"its code fixes {fixed[1]} to the traced {fixed[2]}, by a loop or a branch",
            where=where,
            mend=_FIXED_MEND,
        )
    operator = _OPERATOR.search(text)
    at = f" at {operator[0]}" if operator else ""
    return ExportError(f"cannot be traced{at}: {_reason(chain)}", where=where, mend=_MEND)


def ran(module: nn.Module, error: BaseException) -> ExportError:
    """One line: what the checkpoint's own code raised when torch ran it, in which module."""
    chain = list(_chain(error))
    what = f"the checkpoint cannot be run by torch: {_reason(chain)}"
    mend = "see that its files belong together, and that transformers runs it"
    return ExportError(what, where=_where(module, chain), mend=mend)


def _where(module: nn.Module, chain: list[BaseException]) -> str:
    found = next((name for one in chain[::-1] if (name := _module(one))), None)
    return found or type(getattr(module, "model", module)).__name__


def _reason(chain: list[BaseException]) -> str:
    lines = [line.strip() for line in str(chain[-1]).splitlines() if line.strip()]
    return f"{type(chain[-1]).__name__}: {lines[0][:200] if lines else ''}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _module(error: BaseException) -> str | None:
    """The innermost module of the model whose code was running, with file and line."""
    found: str | None = None
    trace = error.__traceback__
    while trace is not None:
        owner: Any = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and not type(owner).__module__.startswith("torch."):
            name = trace.tb_frame.f_code.co_filename.rsplit("/", 1)[-1]
            if name.startswith("modeling_"):
                found = f"{type(owner).__name__} ({name}:{trace.tb_lineno})"
        trace = trace.tb_next
    return found
