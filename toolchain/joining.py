"""A stage over the graphs of a task: each in a folder of its own, their results in one record."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

#: Lists of results, and the key of an entry that the graph's name is put before.
_LISTS = {
    "steps": "name",
    "layers": "node",
    "worst": "node",
    "tables": "tensor",
    "tables_kept": "tensor",
}
_SUMS = ("tokens", "rows")

Results = dict[str, Any]


def over(
    graphs: Sequence[str], folder: Path, work: Callable[[str, Path], Results]
) -> dict[str, Any]:
    """Do `work` for each graph in its folder; one graph without a name takes the folder itself."""
    results: dict[str, Results] = {}
    for graph in graphs:
        inner = folder / graph
        inner.mkdir(parents=True, exist_ok=True)
        results[graph] = work(graph, inner)
    return results[""] if tuple(results) == ("",) else join(results)


def join(results: Mapping[str, Results]) -> Results:
    """Results of several graphs as those of one; each stays whole under `graphs`.

    Nodes and passes are called `graph:name`, which `[calibration] keep` takes too.
    """
    joined: Results = {}
    for found in results.values():
        joined |= {key: value for key, value in found.items() if key not in joined}
    for key, name in _LISTS.items():
        if key in joined:
            joined[key] = [
                {**entry, name: qualified(graph, entry[name])}
                for graph, found in results.items()
                for entry in found.get(key, ())
            ]
    if "notes" in joined:
        joined["notes"] = [
            f"{graph}: {note}" for graph, found in results.items() for note in found["notes"]
        ]
    for key in _SUMS:
        if joined.get(key) is not None:
            joined[key] = sum(found.get(key) or 0 for found in results.values())
    if "int8_share" in joined:
        joined["int8_share"] = _share(joined["layers"])
    return {**joined, "graphs": dict(results)}


def qualified(graph: str, name: str) -> str:
    """A node's or pass's name among those of several graphs."""
    return f"{graph}:{name}" if graph else name


def named(graph: str, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the names that are meant for this graph, as the graph calls them."""
    if not graph:
        return tuple(names)
    return tuple(name.removeprefix(f"{graph}:") for name in names if name.startswith(f"{graph}:"))


def _share(layers: Sequence[Mapping[str, Any]]) -> float:
    total = sum(layer["macs"] for layer in layers) or 1
    return round(sum(layer["macs"] for layer in layers if layer["int8"]) / total, 6)
