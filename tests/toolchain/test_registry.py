from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest
from llmdeploy import ConfigError
from llmdeploy.toolchain import registry


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    registry.names.cache_clear()
    yield
    registry.names.cache_clear()


def offer(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: points)


def test_a_name_loads_what_it_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, EntryPoint("join", "os.path:join", "llmdeploy.passes"))
    import os.path

    assert registry.find("passes", "join") is os.path.join


def test_an_unknown_name_lists_the_known(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, EntryPoint("fold", "a:B", "llmdeploy.passes"))
    with pytest.raises(ConfigError, match="one of fold"):
        registry.find("passes", "flod")


def test_a_name_offered_twice_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(
        monkeypatch,
        EntryPoint("fold", "ours.fold:Fold", "llmdeploy.passes"),
        EntryPoint("fold", "theirs.fold:Fold", "llmdeploy.passes"),
    )
    with pytest.raises(ConfigError, match=r"ours\.fold and theirs\.fold"):
        registry.names("passes")


def test_a_broken_plugin_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, EntryPoint("fold", "no_such_module:Fold", "llmdeploy.passes"))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        registry.find("passes", "fold")
