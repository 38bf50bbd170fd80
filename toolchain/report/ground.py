"""What every record of report.json obeys: frozen, finite, and no null without a reason."""

import math
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator


def _finite(value: object) -> object:
    """JSON has neither NaN nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


#: A measured number, or null: what is not finite becomes null too.
Figure = Annotated[float | None, BeforeValidator(_finite)]


class Record(BaseModel):
    """A frozen record; of each pair `figure`, `figure_reason` exactly one is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="after")
    def _explained(self) -> Self:
        for name in type(self).model_fields:
            figure = name.removesuffix("_reason")
            if figure == name:
                continue
            if getattr(self, figure) is None and not getattr(self, name):
                raise ValueError(f"{figure} is null and {name} does not say why")
        return self
