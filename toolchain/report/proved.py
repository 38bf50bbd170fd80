"""What shows a release is right, as parts of the page: gates, parity, scores, bundles."""

from collections.abc import Mapping

from . import figures
from .markup import (
    Column,
    Html,
    Notes,
    code,
    digest,
    facts,
    html,
    mend,
    pill,
    section,
    table,
    tag,
)
from .proof import Agreement, Bundle, Gate, Located, OutputParity, Parity, Score
from .record import Report
from .summary import excused, limit, mend_of, value

TONES = {"pass": "good", "fail": "bad", "incomplete": "warn", "not-executed": "warn"}
_SIDES = {"min": "at least ", "max": "at most ", None: ""}


def gates(report: Report) -> Html:
    """Every limit, the value held against it, and the mend of what failed."""
    columns = (Column("gate"), Column("limit", True), Column("value", True), Column("status"))
    rows = [_gate(gate) for gate in report.gates]
    return section("gates", "Gates", table(columns, rows) if rows else None)


def _gate(gate: Gate) -> tuple[object, ...]:
    stated = limit(gate)
    bound = stated if stated == figures.NONE else f"{_SIDES[gate.bound]}{stated}"
    allowed = " (allowed)" if excused(gate) else ""
    why = None if gate.status == "pass" else explained(gate.reason, mend_of(gate))
    status = pill(gate.status + allowed, TONES[gate.status])
    return gate.name, bound, value(gate.value), (status, why)


def explained(reason: str | None, hint: str | None) -> Html:
    """Why a line did not pass, and the command that digs further."""
    dig = tag("div", "dig further: ", mend(hint)) if hint else None
    return tag("div", tag("div", reason), dig, class_="why")


def parity(report: Report) -> Html:
    """Every comparison, its outputs one below the other."""
    columns = (
        Column("compared"),
        Column("output"),
        Column("max abs", True),
        Column("max rel", True),
        Column("cosine, least", True),
        Column("cosine, mean", True),
        Column("SNR", True),
        Column("status"),
    )
    rows = [row for line in report.parity for row in _comparison(line)]
    lead = (
        "What each step computes beside what it came from, on the same samples. "
        "Relative errors are to the reference's scale."
    )
    return section("parity", "Parity", table(columns, rows) if rows else None, lead=lead)


def _comparison(line: Parity) -> list[tuple[object, ...]]:
    names = {None: ("not executed", "warn"), True: ("pass", "good"), False: ("fail", "bad")}
    samples = f", {line.samples} samples" if line.samples else ""
    name = (
        tag("strong", line.name),
        tag("div", f"against {line.against}{samples}", class_="sub", title=line.inputs or None),
        [tag("div", _decides(each), class_="sub") for each in line.agreement],
    )
    why = None if line.ok else (explained(line.reason, line.mend), _begins(line.located))
    status = (pill(*names[line.ok]), why)
    first, *others = [_output(output) for output in line.outputs] or [_NO_OUTPUT]
    return [(name, *first, status), *(("", *other, "") for other in others)]


def _decides(found: Agreement) -> str:
    """Whether both sides choose alike, of an output that is logits."""
    return (
        f"{found.name}: same choice at {figures.percent(found.argmax)} of {found.places:,} places, "
        f"{figures.percent(found.top_k)} of the {found.k} likeliest, "
        f"KL {figures.number(found.kl_mean, 2)}"
    )


def _begins(found: Located | None) -> Html | None:
    """Where a comparison that failed begins."""
    if found is None:
        return None
    if not found.tensor:
        return tag("div", found.reason, class_="why")
    by = (", by pass ", tag("strong", found.by)) if found.by else None
    where = ("first to part: ", code(found.tensor), " at ", code(found.node), by)
    return tag("div", tag("div", where), tag("div", found.reason), class_="why")


#: Where nothing was compared, nothing is claimed.
_NO_OUTPUT = ("",) * 6


def _output(output: OutputParity) -> tuple[object, ...]:
    exact = output.max_abs == 0
    return (
        code(output.name),
        figures.number(output.max_abs, 2),
        figures.number(output.max_rel, 2),
        figures.near_one(output.cosine_min),
        figures.near_one(output.cosine_mean),
        "exact" if exact else figures.decibel(output.snr_db),
    )


def scores(report: Report) -> Html:
    """The task's metric of each thing scored, beside float's."""
    columns = (
        Column("scored"),
        Column("metric"),
        Column("value", True),
        Column("of float", True),
        Column("interval", True),
        Column("data"),
    )
    notes = Notes()
    rows = [_score(score, notes) for score in report.scores]
    return section("scores", "Scores", table(columns, rows, notes) if rows else None)


def _score(score: Score, notes: Notes) -> tuple[object, ...]:
    found = notes.mark(score.value_reason) if score.value is None else figures.score(score.value)
    low, high = score.interval or (None, None)
    span = f"{figures.percent(low)} to {figures.percent(high)}" if score.interval else figures.NONE
    data = f"{score.data}, {score.samples:,} samples" if score.samples else score.data
    if score.prefix_agreement is not None:
        data += f"; {figures.percent(score.prefix_agreement)} of what is written starts alike"
    share = figures.NONE if score.against_float is None else f"{100 * score.against_float:.2f} %"
    return tag("strong", score.name), score.metric, found, share, span, data


def bundles(report: Report) -> Html:
    """Every package, and what it said when it verified itself."""
    return section("bundles", "Bundles", [_bundle(bundle) for bundle in report.bundles])


def _bundle(bundle: Bundle) -> Html:
    said = dict(bundle.verification or {})
    checks = said.pop("checks", None)
    head = tag("h3", f"{bundle.kind} ", _verified(bundle))
    file = (
        code(bundle.path),
        f" {figures.size(bundle.bytes)}, sha256 ",
        digest(bundle.sha256),
    )
    lines = (
        [_check(one) for one in checks if isinstance(one, dict)]
        if isinstance(checks, list)
        else None
    )
    pairs = facts(
        {
            figures.label(key): figures.plain(key, one)
            for key, one in said.items()
            if key not in ("ok", "bundle")
        }
    )
    why = tag("p", bundle.verification_reason) if bundle.verification is None else None
    return html(
        (head, tag("p", file), why, tag("ul", lines, class_="checks") if lines else None, pairs)
    )


def _check(check: Mapping[str, object]) -> Html:
    ok = check.get("ok")
    tone = "warn" if ok is None else "good" if ok else "bad"
    words = {"good": "pass", "bad": "fail", "warn": "not executed"}
    detail = tag("span", f" {check.get('detail') or ''}", class_="sub")
    return tag("li", pill(words[tone], tone), " ", str(check.get("name", "")), detail)


def _verified(bundle: Bundle) -> Html:
    if bundle.verification is None:
        return pill("not verified", "warn")
    good = bundle.verification.get("ok") is not False
    return pill("verified itself" if good else "failed its own check", "good" if good else "bad")
