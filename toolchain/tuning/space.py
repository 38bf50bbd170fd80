"""What may be chosen, built from what is offered here: precisions, passes and their options."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from .. import registry
from ..config import Config, PassTable

Value = str | float | int | bool
#: One point of the space: a value of each knob that counts there.
Settings = Mapping[str, Value]
OFF = "off"
#: Passes in the order in which they are run; others' come after.
ORDER = "prune low-rank sparsify"
#: What fitted passes may cost at most by their own measure: here the score decides.
FREE = 0.5


class Knob(BaseModel):
    """One choice; `ordered` values go from mild to harsh.

    It counts where the knob `of` has one of the values `where`.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    values: tuple[Value, ...]
    ordered: bool = False
    of: str = ""
    where: tuple[Value, ...] = ()

    def counts(self, settings: Settings) -> bool:
        """Whether it is chosen at all, after what was chosen before it."""
        return not self.of or settings.get(self.of) in self.where


class Space(BaseModel):
    """All knobs, each after the one that it hangs on."""

    model_config = ConfigDict(frozen=True)

    knobs: tuple[Knob, ...]

    def points(self) -> Iterator[dict[str, Value]]:
        """Every point, in the order of the knobs' values."""
        found: list[dict[str, Value]] = [{}]
        for knob in self.knobs:
            found = [grown for each in found for grown in _grown(knob, each)]
        yield from found

    def whole(self, settings: Settings) -> dict[str, Value]:
        """A point from some of its values: of the other knobs the first."""
        made: dict[str, Value] = {}
        for knob in self.knobs:
            if knob.counts(made):
                made[knob.name] = settings.get(knob.name, knob.values[0])
        return made

    def milder(self, one: Settings, two: Settings) -> bool:
        """Whether `one` asks for no more than `two` in anything, and in all else for the same."""
        return all(_no_more(knob, one, two) for knob in self.knobs if not knob.of)

    def passes(self) -> tuple[str, ...]:
        """The passes that are chosen among."""
        return tuple(knob.name for knob in self.knobs if OFF in knob.values)


def _grown(knob: Knob, settings: dict[str, Value]) -> list[dict[str, Value]]:
    if not knob.counts(settings):
        return [settings]
    return [{**settings, knob.name: value} for value in knob.values]


def _no_more(knob: Knob, one: Settings, two: Settings) -> bool:
    mine, other = one[knob.name], two[knob.name]
    if OFF in knob.values and mine == OFF:
        return True
    options = [name for name in {*one, *two} if name.startswith(f"{knob.name}.")]
    return mine == other and all(_at_most(one.get(name), two.get(name)) for name in options)


def _at_most(one: Value | None, two: Value | None) -> bool:
    if isinstance(one, int | float) and isinstance(two, int | float):
        return one <= two
    return one == two


def space_of(
    precisions: Sequence[str],
    passes: Sequence[str],
    threads: Sequence[int],
    *,
    heads: Collection[str],
) -> Space:
    """The space of these precisions, the ways of these passes, and these counts of threads.

    `heads` are the precisions that may round the graph's output head or leave it.
    """
    knobs = [Knob(name="precision", values=tuple(precisions))]
    where = tuple(each for each in precisions if each in heads)
    if where:
        values, name = (False, True), "precision.head"
        knobs.append(Knob(name=name, values=values, ordered=True, of="precision", where=where))
    for name in passes:
        knobs += _pass(name)
    if len(threads) > 1:
        knobs.append(Knob(name="threads", values=tuple(threads)))
    return Space(knobs=tuple(knobs))


def _pass(name: str) -> Iterator[Knob]:
    ways: Mapping[str, Mapping[str, tuple[Any, ...]]] = registry.find("passes", name).tunable
    yield Knob(name=name, values=(OFF, *ways))
    options = sorted({option for way in ways.values() for option in way})
    for way, option in itertools.product(ways, options):
        if len(ways[way].get(option, ())) > 1:
            key = f"{name}.{option}"
            yield Knob(name=key, values=ways[way][option], ordered=True, of=name, where=(way,))


def tunable() -> tuple[str, ...]:
    """The passes, anybody's, that say which of their options are worth trying; as they are run."""
    offered = registry.names("passes")
    found = [name for name in offered if getattr(registry.find("passes", name), "tunable", {})]
    return tuple(sorted(found, key=lambda name: (name not in ORDER, ORDER.find(name), name)))


def configured(base: Config, settings: Settings, target: str, replaced: Sequence[str]) -> Config:
    """A configuration at a point; `replaced` are the passes whose tables the point decides."""
    kept = [table for table in base.passes if table.use not in replaced]
    plain = [table for table in kept if not _fitted(table.use)]
    last = [table for table in kept if _fitted(table.use)]
    chosen = [_table(name, settings) for name in replaced if settings.get(name, OFF) != OFF]
    options = dict(base.build.options)
    if settings.get("threads"):
        options[target] = {**options.get(target, {}), "threads": settings["threads"]}
    precision = settings["precision"]
    backends = base.build.backends if target in base.build.backends else (target,)
    build = {"precision": precision, "options": options, "backends": backends}
    changed: dict[str, Any] = {
        "passes": (*plain, *chosen, *last),
        "build": base.build.model_copy(update=build),
    }
    if "precision.head" in settings:
        head = {"head": settings["precision.head"]}
        changed["quantize"] = base.quantize.model_copy(update=head)
    return base.model_copy(update=changed)


def _fitted(name: str) -> bool:
    return bool(getattr(registry.find("passes", name), "fitted", False))


def _table(name: str, settings: Settings) -> PassTable:
    """A pass's table: what the point chose, and what its way leaves no choice of."""
    start = f"{name}."
    options = {
        key.removeprefix(start).replace("_", "-"): value
        for key, value in settings.items()
        if key.startswith(start)
    }
    part = registry.find("passes", name)
    way: Mapping[str, tuple[Any, ...]] = part.tunable[settings[name]]
    options |= {key.replace("_", "-"): each[0] for key, each in way.items() if len(each) == 1}
    fields = part.__pydantic_fields__
    free = {"max-drop": FREE} if "max_drop" in fields else {}
    return PassTable.model_validate({"use": name, **options, **free})


def words(settings: Settings) -> str:
    """A point in words: `int8, prune neurons 0.5 heads 0.25, 1 threads`."""
    parts = [str(settings["precision"])]
    if settings.get("precision.head"):
        parts.append("head rounded")
    for name, value in settings.items():
        inner = [(key, each) for key, each in settings.items() if key.startswith(f"{name}.")]
        if name not in ("precision", "threads") and "." not in name and value != OFF:
            told = [f"{key.removeprefix(f'{name}.')} {each}" for key, each in inner]
            parts.append(" ".join((name, *(told or [str(value)]))))
    if settings.get("threads"):
        parts.append(f"threads {settings['threads']}")
    return ", ".join(parts)
