"""How `llmdeploy inspect` looks on a terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..report import Report, table
from ..report.figures import count, label, percent, plain, seconds, size

#: More characters of one value than this are for --json.
_LONG = 240


def show(found: Mapping[str, Any]) -> RenderableType:
    """An inspection as people read it."""
    head = Text(f"{found['kind']} ", style="bold").append(str(found["path"]), style="cyan")
    parts = [part(found[key]) for key, part in _PARTS.items() if found.get(key) is not None]
    rest = {key: value for key, value in found.items() if key not in (*_PARTS, "kind", "path")}
    return Group(head, *([_facts(rest)] if rest else []), *parts)


def _facts(facts: Mapping[str, Any]) -> Table:
    grid = _grid()
    for key, value in facts.items():
        grid.add_row(label(key), Text(_text(key, value)))
    return grid


def _text(key: str, value: Any) -> str:
    if key == "seconds":
        return seconds(value)
    text = plain(key, value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}... (--json shows all)"


def _graph(graph: Mapping[str, Any]) -> RenderableType:
    opset = ", ".join(
        f"{domain or 'ai.onnx'} {version}" for domain, version in graph["opset"].items()
    )
    facts = {
        "opset": opset,
        "from": graph["producer"] or "unknown",
        "parameters": count(graph["parameters"]),
        "weights": _sizes(graph["bytes_by_dtype"]),
        "external": _sizes(graph["external_bytes"]) or "none",
    }
    ends = [*_ends("input", graph["inputs"]), *_ends("output", graph["outputs"])]
    return Group(_facts(facts), _rows(ends), _matmuls(graph["matmuls"]), _operators(graph))


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size(bytes_)}" for name, bytes_ in sizes.items())


def _ends(end: str, values: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, ...]]:
    for value in values:
        shape = "?" if value["shape"] is None else ", ".join(map(str, value["shape"]))
        yield end, value["name"], f"{value['dtype']} [{shape}]"


def _rows(rows: Iterable[Iterable[str]]) -> Table:
    grid = _grid()
    for row in rows:
        grid.add_row(*map(Text, row))
    return grid


def _matmuls(lines: Iterable[Mapping[str, Any]]) -> Table:
    grid = _grid("MatMuls", "count", "weights", "share")
    for line in lines:
        row = (str(line["count"]), count(line["weights"]), percent(line["share"]))
        grid.add_row(line["precision"], *row)
    return grid


def _operators(graph: Mapping[str, Any]) -> Text:
    listed = "  ".join(f"{name} {number}" for name, number in graph["operators"].items())
    return Text(f"{graph['nodes']} nodes: ", style="bold").append(listed, style="default")


def _stages(stages: Iterable[Mapping[str, Any]]) -> Table:
    grid = _grid("stage", "seconds", "peak memory", "size", "digest")
    for one in stages:
        measured = (seconds(one["seconds"]), size(one["peak_memory_bytes"]), size(one["bytes"]))
        grid.add_row(Text(one["name"]), *measured, one["digest"][:12])
    return grid


def _manifest(manifest: Mapping[str, Any]) -> RenderableType:
    keys = ("name", "version", "task", "lineage", "versions", "engines", "tolerance")
    facts = _facts({key: manifest[key] for key in keys})
    grid = _grid("file", "size", "sha256")
    for name, file in manifest["files"].items():
        grid.add_row(Text(name), size(file["size"]), file["sha256"][:12])
    return Group(facts, grid)


def _findings(findings: Iterable[Mapping[str, Any]]) -> RenderableType:
    alike: dict[tuple[str, str, bool], list[str]] = {}
    for one in findings:
        alike.setdefault((one["what"], one["mend"], one["silent"]), []).append(one["node"])
    if not alike:
        return Text("the target takes it as it is", style="green")
    grid = _grid("found", "mend", "nodes")
    for (what, mend, silent), nodes in alike.items():
        found = Text(what, style="yellow").append(", without a word" if silent else "")
        grid.add_row(found, Text(mend), Text(_some(nodes)))
    return grid


def _some(nodes: Sequence[str]) -> str:
    more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
    return f"{', '.join(nodes[:3])}{more}"


def _grid(*columns: str) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    grid.show_header = bool(columns)
    for column in columns:
        grid.add_column(column)
    return grid


def _report(report: Mapping[str, Any]) -> RenderableType:
    return table(Report.model_validate(report))


_PARTS = {
    "graph": _graph,
    "stages": _stages,
    "manifest": _manifest,
    "engine": _facts,
    "findings": _findings,
    "report": _report,
}
