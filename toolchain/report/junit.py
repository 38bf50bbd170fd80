"""junit.xml: a testcase a gate and a comparison, for the test pane of a CI."""

import re
from xml.etree import ElementTree as ET

from .proof import Gate, Parity
from .record import Report
from .summary import limit, value

#: What XML 1.0 cannot hold, escaped or not.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report) -> str:
    """The report's gates and comparisons as JUnit XML."""
    root = ET.Element("testsuites", name=report.tool.name)
    _suite(root, report, "gates", [_gate(gate) for gate in report.gates])
    _suite(root, report, "parity", [_parity(line) for line in report.parity])
    cases = [case for suite in root for case in suite]
    _count(root, cases)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _suite(root: ET.Element, report: Report, name: str, cases: list[ET.Element]) -> None:
    stamp = report.created.isoformat(timespec="seconds")
    suite = ET.SubElement(root, "testsuite", name=name, timestamp=stamp)
    _count(suite, cases)
    suite.extend(cases)


def _count(element: ET.Element, cases: list[ET.Element]) -> None:
    element.set("tests", str(len(cases)))
    element.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    element.set("errors", "0")
    element.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))
    element.set("time", "0")


def _gate(gate: Gate) -> ET.Element:
    case = _case("gates", gate.name)
    detail = f"limit {limit(gate)}, value {value(gate.value)}"
    if gate.status == "fail":
        _outcome(case, "failure", gate.reason, detail, gate.mend)
    elif gate.status == "not-executed":
        _outcome(case, "skipped", gate.reason, detail, gate.mend)
    return case


def _parity(line: Parity) -> ET.Element:
    case = _case("parity", f"{line.name} against {line.against}")
    detail = f"{line.samples} samples"
    if line.ok is None:
        _outcome(case, "skipped", line.reason, detail, line.mend)
    elif not line.ok:
        _outcome(case, "failure", line.reason, detail, line.mend)
    return case


def _case(suite: str, name: str) -> ET.Element:
    return ET.Element("testcase", classname=f"llmdeploy.{suite}", name=_clean(name), time="0")


def _outcome(case: ET.Element, tag: str, reason: str | None, detail: str, mend: str | None) -> None:
    element = ET.SubElement(case, tag, message=_clean(reason or ""))
    if tag == "failure":
        element.set("type", case.get("classname", ""))
    element.text = _clean("\n".join(part for part in (detail, mend) if part))


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
