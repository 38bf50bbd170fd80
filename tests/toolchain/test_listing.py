import dataclasses
import io
import json
import sys
import types
from importlib.metadata import EntryPoint
from typing import Annotated, ClassVar, Literal

import pytest
from llmdeploy import ConfigError
from llmdeploy.toolchain import registry
from llmdeploy.toolchain.listing import listing, options, show
from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass
from rich.console import Console


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Prune:
    """Drop what is small.

    A second paragraph.
    """

    ratio: Annotated[float, Field(gt=0, description="The share that goes.")]
    pairs: dict[str, list[Annotated[int, Field(gt=0)]]] | None = None
    kind: Literal["row", "column"] = "row"
    keep_names: tuple[str, ...] = Field(default_factory=lambda: ("a",))


@dataclasses.dataclass(frozen=True)
class Percentile:
    """Clip at a percentile."""

    share: float = 99.9
    names: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Bare:
    size: int


class Model(BaseModel):
    """A model."""

    path: str | None = None


def pearson(scores: list[float], *, clip: bool = False) -> float:
    """Correlation, in one number."""
    return 0.0


def _options(part: object) -> dict[str, tuple[str, bool, object]]:
    return {one["name"]: (one["type"], one["required"], one["default"]) for one in options(part)}


def test_the_fields_of_a_pydantic_dataclass():
    assert _options(Prune) == {
        "ratio": ("float", True, None),
        "pairs": ("dict[str, list[int]] | None", False, None),
        "kind": ("'row' | 'column'", False, "row"),
        "keep-names": ("tuple[str, ...]", False, ["a"]),
    }
    assert next(options(Prune))["about"] == "The share that goes."


def test_the_fields_of_a_dataclass_a_model_and_a_function():
    assert _options(Percentile) == {
        "share": ("float", False, 99.9),
        "names": ("list[str]", False, []),
    }
    assert _options(Bare) == {"size": ("int", True, None)}
    assert _options(Model) == {"path": ("str | None", False, None)}
    assert _options(pearson) == {"clip": ("bool", False, False)}
    assert _options(object()) == {}


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("fake_parts")
    module.__dict__.update(Prune=Prune, Bare=Bare, pearson=pearson)
    monkeypatch.setitem(sys.modules, "fake_parts", module)
    points = {
        "passes": {"prune": "Prune", "bare": "Bare"},
        "metrics": {"pearson": "pearson"},
        "observers": {"gone": "Absent"},
    }

    def names(kind: str) -> dict[str, EntryPoint]:
        return {
            name: EntryPoint(name, f"fake_parts:{attribute}", f"llmdeploy.{kind}")
            for name, attribute in points.get(kind, {}).items()
        }

    monkeypatch.setattr(registry, "names", names)


def test_every_part_with_its_package_and_first_sentence(offered: None):
    passes = {part["name"]: part for part in listing()["passes"]}
    assert passes["prune"]["about"] == "Drop what is small."
    assert passes["prune"]["details"] == "A second paragraph."
    assert passes["prune"]["package"] == "fake_parts"
    # dataclasses make up a docstring, which says nothing
    assert passes["bare"]["about"] == ""
    assert json.loads(json.dumps(listing())) == listing()


class Backend:
    """Builds."""

    accepts = Model
    refuses: ClassVar[dict[str, str]] = {}


class Picky(Backend):
    refuses: ClassVar[dict[str, str]] = {"path": "there is none"}


def test_a_backend_says_what_it_accepts_and_refuses():
    assert list(_options(Backend)) == ["path"]
    assert list(_options(Picky)) == []


def test_one_kind(offered: None):
    assert list(listing("metrics")) == ["metrics"]
    with pytest.raises(ConfigError, match="one of passes, observers"):
        listing("colours")


def test_what_cannot_be_loaded_is_listed_with_the_reason(offered: None):
    (gone,) = listing("observers")["observers"]
    assert "cannot be loaded" in gone["error"]


def test_people_read_it(offered: None):
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(show(listing()))
    file = console.file
    assert isinstance(file, io.StringIO)
    text = file.getvalue()
    for word in ("prune", "ratio required", "kind = 'row'", "The share that goes.", "cannot be"):
        assert word in text


def test_our_own_parts_load():
    broken = [part for parts in listing().values() for part in parts if part["error"]]
    assert not broken
