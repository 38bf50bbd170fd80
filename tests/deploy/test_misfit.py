"""What does not fit a schema is told by key, value and what is wanted, in plain words."""

from typing import Any, Literal

import pytest
from llmdeploy.deploy.misfit import misfit
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    most_rows: int = Field(default=1, ge=1)
    kind: Literal["a", "b"] = "a"


class Outer(BaseModel):
    parts: list[Inner]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "parts: it is missing"),
        ([], "the file: [] should be a valid dictionary or instance of Outer"),
        ({"parts": [{"mots-rows": 1}]}, "unknown key parts.0.mots-rows"),
        ({"parts": [{}, {"most_rows": 0}]}, "parts.1.most-rows: 0 should be greater than"),
        ({"parts": [{"kind": "c"}]}, "parts.0.kind: 'c' should be 'a' or 'b'"),
    ],
)
def test_what_does_not_fit(given: Any, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(given)
    assert misfit(caught.value, dashes=True).startswith(told)
