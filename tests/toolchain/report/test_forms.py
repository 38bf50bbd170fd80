import io
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import junitparser
import pytest
from llmdeploy.toolchain.report import Report, write
from llmdeploy.toolchain.report.markdown import markdown
from llmdeploy.toolchain.report.table import table
from rich.console import Console


def _read(report: Report, folder: Path) -> junitparser.JUnitXml:
    write(report, folder)
    return junitparser.JUnitXml.fromfile(str(folder / "junit.xml"))


def test_junit_has_a_case_for_every_gate_and_comparison(report: Report, tmp_path: Path):
    xml = _read(report, tmp_path)
    suites = {suite.name: suite for suite in xml}
    assert {name: suite.tests for name, suite in suites.items()} == {"gates": 3, "parity": 3}
    assert (xml.tests, xml.failures, xml.skipped, xml.errors) == (6, 2, 2, 0)
    assert sum(len(list(suite)) for suite in xml) == 6


def test_junit_says_why(report: Report, tmp_path: Path):
    cases = {case.name: case for suite in _read(report, tmp_path) for case in suite}
    assert cases["min-int8-share"].is_passed
    failure = cases["min-cosine"].result[0]
    assert isinstance(failure, junitparser.Failure)
    assert failure.message == "the mean cosine is under the limit"
    assert failure.text == "limit 0.99, value 0.7\nllmdeploy inspect artifacts/quantize"
    skipped = cases["min-speedup"].result[0]
    assert isinstance(skipped, junitparser.Skipped)
    assert skipped.message == "tensorrt-rtx cannot be executed here"


def test_junit_survives_what_xml_cannot_hold(report: Report, tmp_path: Path):
    write(report, tmp_path)
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    messages = [element.get("message") or "" for element in root.iter("failure")]
    assert "cosine 0.7 is under 0.99\N{REPLACEMENT CHARACTER}" in messages


def test_markdown_starts_with_the_verdict_and_shows_gates_and_stages(report: Report):
    text = markdown(report)
    assert text.splitlines()[0].endswith(": fail")
    assert "| ❌ min\\-cosine | 0.99 | 0.7 |" in text
    assert "2.41\N{MULTIPLICATION SIGN}" in text
    assert "llmdeploy inspect artifacts/quantize" in text


def test_markdown_takes_no_name_as_markup(report: Report):
    text = markdown(report)
    assert "<script" not in text.replace("\\<script", "")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    header_cells = {"gate": 4, "stage": 7, "bundle": 4}
    current = 0
    for row in rows:
        cells = row.replace("\\|", "").count("|") - 1
        current = next(
            (n for name, n in header_cells.items() if row.startswith(f"| {name} |")), current
        )
        assert cells == current, row


def _show(report: Report) -> str:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(table(report))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_the_table_shows_stages_gates_and_verdict(report: Report):
    text = _show(report)
    for word in (
        "export (fresh)",
        "peak memory",
        "1.0 GB",
        "0.99712",
        "2.41\N{MULTIPLICATION SIGN}",
        "verdict: fail",
    ):
        assert word in text


def test_a_gate_that_may_go_unexecuted_needs_no_mend(data: dict[str, Any]):
    data["gates"][2] |= {"mend": "buy a GPU", "limit": 0}
    text = _show(Report.model_validate(data))
    assert "buy a GPU" in text
    data["gates"][2]["allowed"] = True
    excused = Report.model_validate(data)
    assert "not-executed, allowed: tensorrt-rtx cannot be executed here" in _show(excused)
    assert "buy a GPU" not in _show(excused) + markdown(excused)


@pytest.mark.parametrize("name", ["[red]x[/]", "[/]"])
def test_the_table_takes_no_name_as_markup(data: dict[str, Any], name: str):
    data["stages"][0]["name"] = name
    data["gates"][0]["name"] = name
    assert _show(Report.model_validate(data)).count(name) == 2
