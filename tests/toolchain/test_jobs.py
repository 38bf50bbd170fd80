"""Jobs in processes or on Ray: each has its own, and one that dies takes no other with it."""

import importlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llmdeploy import ConfigError, Error
from llmdeploy.toolchain.jobs import Place, run

#: A job's function is one of a module that its process can import, and tests are in none.
WORKS = """
import os, signal, time
from pathlib import Path
from llmdeploy import ConfigError

def double(number):
    return 2 * number, os.getpid()

def refuse(number):
    if number == 1:
        raise ConfigError("not this one", where="here", mend="another")
    return number

def die_once(mark):
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return mark

def die(_):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("works")
    (folder / "works_of_jobs.py").write_text(WORKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("works_of_jobs")


@pytest.fixture(scope="module", params=["2", pytest.param("ray", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, works: Any) -> Iterator[Place]:
    if request.param != "ray":
        yield Place.of(request.param)
        return
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'llmdeploy[ray]'")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=1 << 27)
    yield Place.of("ray")
    ray.shutdown()


def test_each_job_has_a_process_of_its_own(place: Place, works: Any) -> None:
    ended = sorted(run(works.double, [1, 2, 3], place), key=lambda each: each.index)
    assert [each.result[0] for each in ended] == [2, 4, 6]
    assert len({each.result[1] for each in ended} | {os.getpid()}) == 4


def test_an_error_is_an_answer_and_comes_back_whole(place: Place, works: Any) -> None:
    by_index = {each.index: each for each in run(works.refuse, [0, 1, 2], place)}
    error = by_index[1].error
    assert isinstance(error, ConfigError)
    assert (error.what, error.where, error.mend) == ("not this one", "here", "another")
    assert (by_index[1].tries, by_index[0].result, by_index[2].result) == (1, 0, 2)


def test_what_dies_is_begun_again(place: Place, works: Any, tmp_path: Path) -> None:
    marks = [str(tmp_path / name) for name in ("one", "two")]
    ended = list(run(works.die_once, marks, place))
    assert {each.result for each in ended} == set(marks)
    assert {each.tries for each in ended} == {2}


def test_what_dies_again_is_an_error_of_its_own(place: Place, works: Any) -> None:
    (ended,) = run(works.die, [0], place)
    assert isinstance(ended.error, Error)
    assert "died 2 times" in str(ended.error)


def test_closing_ends_what_runs() -> None:
    jobs = run(time.sleep, [0.0, 600.0], Place(2))
    next(jobs)
    started = time.monotonic()
    jobs.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("3", Place(3)),
        ("ray", Place(address="")),
        ("ray:head:6379", Place(address="head:6379")),
        ("ray://head:10001", Place(address="ray://head:10001")),
    ],
)
def test_a_place_is_read_as_it_is_written(text: str, place: Place) -> None:
    assert Place.of(text) == place


@pytest.mark.parametrize("text", ["0", "-1", "many", "", "rayon"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no place to run jobs"):
        Place.of(text)
