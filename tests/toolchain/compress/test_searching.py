"""Widths that save enough at the least loss, and tables that noise does not turn over."""

import itertools

import numpy as np
import pytest
from llmdeploy import ConfigError
from llmdeploy.passes.coupling import Group
from llmdeploy.toolchain.compress.levels import counts
from llmdeploy.toolchain.compress.rows import rows
from llmdeploy.toolchain.compress.search import searched, solve
from llmdeploy.toolchain.compress.subject import Choice, Level, Plan, Widths
from llmdeploy.toolchain.compress.table import rising
from llmdeploy.toolchain.compress.widths import Ask, widths


def group(name: str, units: int = 4, width: int = 4) -> Group:
    labels = np.repeat(np.arange(units), width // units)
    return Group(name, "neurons", units, labels, (f"{name}.up",), {})


def choices(seed: int = 0) -> list[Choice]:
    random = np.random.default_rng(seed)
    made: list[Choice] = []
    for name in "abcd":
        levels = tuple(Level(n, tuple(range(n))) for n in (4, 3, 2, 1))
        losses = tuple(np.cumsum([0.0, *random.random(3)]).tolist())
        seconds = tuple((-np.cumsum([0.0, *random.random(3)])).tolist())
        made.append(Choice(group(name), levels, losses, seconds))
    return made


def total(found: list[Choice], at: tuple[int, ...], what: str) -> float:
    return sum(getattr(each, what)[level] for each, level in zip(found, at, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_the_least_loss_of_all_that_save_enough(seed: int) -> None:
    found, saving = choices(seed), 2.5
    fitting = [
        at for at in itertools.product(range(4), repeat=4) if -total(found, at, "seconds") >= saving
    ]
    best = min(total(found, at, "losses") for at in fitting)
    made = solve(found, saving)
    assert made is not None
    at = tuple(made[each.group.consumer] for each in found)
    assert -total(found, at, "seconds") >= saving * 0.99
    assert total(found, at, "losses") <= best + 0.05


def test_more_than_there_is_cannot_be_saved() -> None:
    assert solve(choices(), 100.0) is None
    assert searched(choices(), 100.0, lambda _: 0.0) is None


def test_what_loses_least_together_is_kept() -> None:
    found = choices()
    plain = solve(found, 2.0)
    assert plain is not None

    def joint(made: Widths) -> float:
        return 10.0 * (made["a"] == plain["a"]) + sum(made.values())

    best = searched(found, 2.0, joint, trials=60)
    assert best is not None
    assert best[0]["a"] != plain["a"]
    assert best[1] == joint(best[0])


class Slow:
    """A clock by which plans save less than the table says."""

    def ratio(self, plan: Plan, budget_s: float = 0.0) -> tuple[float, float]:
        del budget_s
        gone = sum(4 - len(kept) for kept in plan.values())
        return 1.0, 1 - 0.04 * gone


def test_a_plan_is_timed_as_a_whole_and_narrowed_until_it_is_fast_enough() -> None:
    made = [
        Choice(each.group, each.levels, (0.0, 0.1, 0.3, 0.9), (0.0, -0.1, -0.15, -0.2))
        for each in choices()
    ]
    loss = {each.group.consumer: each.losses for each in made}

    def joint(found: Widths) -> float:
        return sum(loss[name][at] for name, at in found.items())

    found = widths(made, 1.0, Ask(1.4, 0.5), joint, Slow())  # pyright: ignore[reportArgumentType]
    assert found.ratio >= 1.4 * 0.99
    with pytest.raises(ConfigError, match="times as fast"):
        widths(made, 1.0, Ask(3.0, 0.5), joint, Slow())  # pyright: ignore[reportArgumentType]
    free = widths(made, 1.0, Ask(None, 0.5), joint, Slow())  # pyright: ignore[reportArgumentType]
    assert 0 < free.loss <= 0.5 * 1.2


def test_a_narrower_layer_is_never_slower() -> None:
    noisy = [0.0, 0.2, 0.1, 0.3, -0.1, 0.5]
    made = rising(noisy)
    assert made == sorted(made)
    assert sum(made) == pytest.approx(sum(noisy))
    assert rising([-0.1, -0.2]) == [0.0, 0.0]


def test_widths_are_rounded_to_what_runs_fast() -> None:
    assert all(n % 32 == 0 for n in counts(group("a", 1536, 1536), 32, 0))
    assert counts(group("a", 12, 384), 32, 0) == tuple(range(12, -1, -1))
    assert counts(group("a", 12, 96), 32, 1) == (12, 8, 4)
    assert counts(group("a", 1, 64), 32, 1) == (1,)


def test_padding_is_no_row() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    feed = {"mask": np.array([[1, 1, 0], [1, 0, 0]])}
    np.testing.assert_array_equal(rows(x, feed, "mask"), [x[0, 0], x[0, 1], x[1, 0]])
    assert rows(x, feed, None).shape == (6, 4)
    late = {"mask": np.array([[0, 1, 1, 1], [1, 1, 1, 0]])}
    assert len(rows(x, late, "mask")) == 5
    assert rows(x[:, 0], feed, "mask").shape == (2, 4)
