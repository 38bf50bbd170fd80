"""Clock, shelf and hands: trials side by side share stages, and spoil and lose no more than one."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from llmdeploy.toolchain import jobs
from llmdeploy.toolchain.config import Config
from llmdeploy.toolchain.tuning import hands as working
from llmdeploy.toolchain.tuning.clock import Clock
from llmdeploy.toolchain.tuning.limits import Limits
from llmdeploy.toolchain.tuning.result import Asked
from llmdeploy.toolchain.tuning.shelf import Shelf
from llmdeploy.toolchain.tuning.split import Split
from llmdeploy.toolchain.workspace import Workspace

NOTHING: dict[str, Any] = {"inputs": {}, "versions": {}}


def asked(folder: Path, **settings: Any) -> Asked:
    return Asked(
        config=Config().model_dump(mode="json"),
        folder=str(folder),
        here=str(folder),
        workspace=str(folder / "artifacts"),
        target="onnxruntime",
        limits=Limits(max_drop=0.1),
        split=Split(words="", items=0, digest=""),
        replaced=(),
        settings=settings,
    )


def test_who_times_is_alone_and_who_works_is_not(tmp_path: Path):
    said = list[str]()
    both, inside = threading.Barrier(2, timeout=10), threading.Event()

    def work() -> None:
        with Clock(tmp_path).working():
            both.wait()
            inside.set()
            time.sleep(0.2)
            said.append("worked")

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert inside.wait(10)
    clock = Clock(tmp_path)
    with clock.timing(), clock.working():
        said.append("timed")
    for thread in threads:
        thread.join()
    assert said == ["worked", "worked", "timed"]


def test_nobody_begins_to_work_while_someone_times(tmp_path: Path):
    begun = threading.Event()

    def work() -> None:
        with Clock(tmp_path).working():
            begun.set()

    with Clock(tmp_path).timing():
        thread = threading.Thread(target=work)
        thread.start()
        assert not begun.wait(0.2)
    thread.join()
    assert begun.is_set()


def make(shelf: Shelf, name: str, text: str, made: list[str]) -> None:
    def work(folder: Path) -> dict[str, Any]:
        made.append(text)
        (folder / "file").write_text(text)
        return {}

    shelf.run(name, work, options={"text": text}, **NOTHING)


def test_trials_share_what_they_have_alike_and_a_workspace_takes_it_fresh(tmp_path: Path):
    main, made = Workspace(tmp_path), list[str]()
    one, two = (Shelf(tmp_path / "stages", Clock(tmp_path), main) for _ in range(2))
    make(one, "engine/x", "a", made)
    make(two, "engine/x", "a", made)
    make(two, "engine/x", "b", made)
    assert made == ["a", "b"]
    assert (one.path("engine/x") / "file").read_text() == "a"
    assert (two.path("engine/x") / "file").read_text() == "b"
    one.give(two.keys, main)
    found = main.run("engine/x", lambda _: {}, options={"text": "b"}, **NOTHING)
    assert found.fresh
    assert (tmp_path / "engine" / "x" / "file").read_text() == "b"
    one.drop("engine/x", two.keys["engine/x"])
    assert two.stage("engine/x") is None


def test_what_the_workspace_has_is_not_made_again(tmp_path: Path):
    main, made = Workspace(tmp_path), list[str]()

    def work(folder: Path) -> dict[str, Any]:
        (folder / "file").write_text("from before")
        return {}

    main.run("export", work, options={"text": "a"}, **NOTHING)
    shelf = Shelf(tmp_path / "stages", Clock(tmp_path), main)
    make(shelf, "export", "a", made)
    assert not made
    assert (shelf.path("export") / "file").read_text() == "from before"


def test_a_trial_that_cannot_be_made_says_why_from_its_own_process(tmp_path: Path):
    hands = working.Hands(jobs.Place(1))
    try:
        found = hands.take(asked(tmp_path, precision="fp32")).result(timeout=60)
    finally:
        hands.close()
    assert "no checkpoint is named" in (found.stopped or "")
    assert not found.fits


def test_a_worker_that_is_killed_loses_its_trial(tmp_path: Path):
    hands = working.Hands(jobs.Place(1))
    try:
        result = hands.take(asked(tmp_path))
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        os.kill(children[0].pid or 0, signal.SIGKILL)
        with pytest.raises(working.LostError, match="signal 9"):
            result.result(timeout=60)
    finally:
        hands.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[working.Hands]:
    """A Ray cluster of this machine alone."""
    pytest.importorskip("ray", reason="pip install 'llmdeploy[ray]'")
    hands = working.Hands(jobs.Place.of("ray"))
    yield hands
    hands.close()


def test_trials_run_on_ray(cluster: working.Hands, tmp_path: Path):
    results = [cluster.take(asked(tmp_path, precision="fp32", n=n)) for n in range(2)]
    found = [result.result(timeout=120) for result in results]
    assert [each.settings["n"] for each in found] == [0, 1]
    assert all("no checkpoint is named" in (each.stopped or "") for each in found)


def test_a_ray_worker_that_is_killed_loses_its_trial_and_no_other(
    cluster: working.Hands, tmp_path: Path
):
    lost = cluster.take(asked(tmp_path, precision="fp32"))
    ends = time.monotonic() + 60
    while not (workers := _workers()) and time.monotonic() < ends:
        time.sleep(0.005)
    os.kill(workers[0], signal.SIGKILL)
    with pytest.raises(working.LostError, match="died"):
        lost.result(timeout=60)
    again = cluster.take(asked(tmp_path, precision="fp32")).result(timeout=120)
    assert "no checkpoint is named" in (again.stopped or "")


def _workers() -> list[int]:
    """Ray's processes that carry a trial out, by the titles it gives them."""
    found = list[int]()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(b"ray::answer"):
                found.append(int(path.parent.name))
    return found
