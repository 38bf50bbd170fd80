import json
import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from llmdeploy.toolchain.report import Report
from llmdeploy.toolchain.report.html import page
from llmdeploy.toolchain.report.markup import Notes, mend, name, tag

VOID = {"meta", "wbr"}
SECTIONS = [
    "gates",
    "lineage",
    "stages",
    "scores",
    "parity",
    "precision",
    "latency",
    "sizes",
    "passes",
    "calibration",
    "engines",
    "bundles",
    "environment",
]


class Reader(HTMLParser):
    """Tags must close in order; the text, the ids and the attributes are kept."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.seen if "id" in attributes]


def test_every_section_is_there_and_in_the_contents(report: Report):
    read = Reader(page(report))
    assert read.ids() == SECTIONS
    links = [attributes.get("href") for tag, attributes in read.seen if tag == "a"]
    assert links == [f"#{section}" for section in SECTIONS]


def test_the_verdict_and_what_failed_come_first(report: Report):
    text = Reader(page(report)).text
    first = text[: text.index("Gates")]
    assert "Not fit to ship: of 3 gates 1 passed, 1 failed, 1 not executed here." in first
    assert "the mean cosine is under the limit" in first
    assert "dig further: llmdeploy inspect artifacts/quantize" in first
    assert "tensorrt-rtx cannot be executed here" in first


def test_nothing_is_fetched_and_nothing_can_run(report: Report):
    text = page(report)
    read = Reader(text)
    assert not [tag for tag, _ in read.seen if tag in ("script", "link", "img", "iframe", "object")]
    assert not re.search(r"https?:|url\(|@import|\bsrc=|\bon\w+=", text)
    policy = [a.get("content") for _, a in read.seen if a.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def _strings(value: Any) -> Any:
    """Every string of the report made hostile, where a string may be anything."""
    if isinstance(value, dict):
        kept = {"verdict", "status", "created", "bound", "call"}
        return {key: one if key in kept else _strings(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_strings(one) for one in value]
    return (
        f"\"'><script>{value}</script><b onclick=x>$x ${{y}}" if isinstance(value, str) else value
    )


def test_no_string_of_a_report_is_taken_as_markup(data: dict[str, Any]):
    read = Reader(page(Report.model_validate(_strings(data))))
    assert not [tag for tag, a in read.seen if tag == "script" or (tag == "b" and a)]
    assert read.ids() == SECTIONS
    assert "$x ${y}" in read.text


def test_a_report_of_almost_nothing_is_a_page(data: dict[str, Any]):
    kept = ("tool", "created", "model", "environment")
    bare = {key: data[key] for key in kept} | {
        "verdict": "incomplete",
        "calibration_reason": "the precision needs none",
        "quantization_reason": "the precision is float",
    }
    read = Reader(page(Report.model_validate(bare)))
    assert read.ids() == ["lineage", "precision", "calibration", "environment"]
    assert "no gate was set" in read.text
    assert "the precision is float" in read.text


def test_rewrites_that_were_not_kept_are_named(report: Report):
    text = Reader(page(report)).text
    assert "12 proved one by one, worst error 2e-7" in text
    assert "not kept wrong at <script>" in text


def test_facts_are_in_words_and_the_long_ones_folded(data: dict[str, Any]):
    facts = {"weights_memory_bytes": 2 * 10**6, "tf32": False, "profile": {"x": list(range(40))}}
    data["engines"][0]["facts"] = facts | {"executed": True}
    text = Reader(page(Report.model_validate(data))).text
    assert "weights memory 2.0 MB" in text
    assert "tf32 no" in text
    assert "executed yes" not in text
    assert "1 more{" in text


def test_layers_stand_worst_first(report: Report):
    text = Reader(page(report)).text
    worst = text[text.index("Most error first") :]
    assert [int(found) for found in re.findall(r"layer\.(\d)/", worst)] == [0, 1, 2, 3]


def test_a_comparison_says_what_it_decides_and_where_it_begins(report: Report):
    text = Reader(page(report)).text
    assert "same choice at 75.0 % of 512 places, 90.0 % of the 5 likeliest, KL 0.02" in text
    assert "first to part: " in text
    assert "3 of 40 shared tensors differ" in text


def test_latencies_are_distributions_and_engines_have_a_memory(report: Report):
    read = Reader(page(report))
    shown = [a for tag, a in read.seen if tag == "svg" and "spread" in (a.get("class") or "")]
    assert len(shown) == len(report.latency)
    assert "p99 18 ms" in (shown[1].get("aria-label") or "")
    assert "140.0 MB" in read.text
    assert "102 ms" in read.text


def test_worst_layers_show_what_they_are_given(report: Report):
    read = Reader(page(report))
    drawn = [a for tag, a in read.seen if tag == "svg" and a.get("class") == "histogram"]
    assert len(drawn) == 4
    assert "-2.9 to 3, 20.0 dB" in read.text


def test_what_other_shares_in_int8_would_lose_is_drawn(data: dict[str, Any]):
    text = Reader(page(Report.model_validate(data))).text
    assert "Agreement with float's outputs" in text
    shown = ("100.0 % in INT8\n99.79 %", "96.0 % in INT8\n99.91 %", "0 % in INT8\n100 %")
    assert all(each in text for each in shown)
    data["quantization"]["curve"] = []
    assert "Agreement with float" not in page(Report.model_validate(data))


@pytest.mark.parametrize("snr", [None, 0.0, -3.0])
def test_odd_ratios_are_drawn(data: dict[str, Any], snr: float | None):
    for layer in data["quantization"]["layers"]:
        layer["snr_db"] = snr
    Reader(page(Report.model_validate(data)))


def test_footnotes_say_each_reason_once():
    notes = Notes()
    marks = [notes.mark(reason) for reason in ("no GPU", "no data", "no GPU")]
    assert [re.findall("<sup>(.)</sup>", mark) for mark in marks] == [["a"], ["b"], ["a"]]
    assert Reader(notes.html()).text == "a no GPUb no data"
    many = Notes()
    assert len({many.mark(str(index)) for index in range(40)}) == 40


def test_what_is_not_markup_is_escaped():
    assert tag("p", "<", [1, None, tag("b", "&")], title='"') == (
        '<p title="&quot;">&lt;1<b>&amp;</b></p>'
    )
    assert name("a_b&amp;/c.d-0.1") == "a_<wbr>b&amp;amp;/<wbr>c.<wbr>d-<wbr>0.1"


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("llmdeploy diff a b", ["llmdeploy diff a b"]),
        ("run `llmdeploy verify` there", ["llmdeploy verify"]),
        ("llmdeploy calibrate, and look at its layers", []),
    ],
)
def test_commands_look_like_commands(text: str, commands: list[str]):
    html = mend(text)
    assert re.findall(r'<code class="command">(.*?)</code>', html) == commands
    assert Reader(html).text == text.replace("`", "")


CHROME = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
#: The report forbids scripts: a frame around it measures what it looks like from outside.
MEASURE = """<!doctype html><iframe id=f style="border:0;width:{width}px;height:900px"
srcdoc="{page}"></iframe><script>
f.onload = () => {{
  const d = f.contentDocument, root = d.documentElement;
  const tall = Object.fromEntries([...d.querySelectorAll("section")].map(
    s => [s.id, s.getBoundingClientRect().height]));
  const wide = [...d.querySelectorAll("main *:not(svg *)")].filter(
    e => !e.closest(".scroll, nav") && e.getBoundingClientRect().right > {width} + 1).map(
    e => e.outerHTML.slice(0, 80));
  const answer = JSON.stringify({{over: root.scrollWidth - root.clientWidth, wide, tall}});
  document.body.innerHTML = "<pre>" + answer + "</pre>";
}};
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(not CHROME, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_a_browser_lays_it_out_within_its_width(report: Report, tmp_path: Path, width: int):
    frame = tmp_path / "frame.html"
    frame.write_text(MEASURE.format(width=width, page=escape(page(report))), encoding="utf-8")
    command = [CHROME, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path}/profile", "--window-size=1400,1000", "--dump-dom"]
    done = subprocess.run(
        [*command, frame.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    found = re.search(r"<pre>(.*)</pre>", done.stdout)
    assert found, done.stdout[-500:]
    seen = json.loads(found[1])
    assert (seen["over"], seen["wide"]) == (0, [])
    assert {section for section, height in seen["tall"].items() if height > 50} == set(SECTIONS)
