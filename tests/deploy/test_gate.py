import pytest
from llmdeploy.deploy.gate import allow, at_least, at_most, failures


@pytest.mark.parametrize(
    ("value", "status"), [(0.99, "pass"), (1.0, "pass"), (0.98999, "fail"), (None, "not-executed")]
)
def test_at_least(value: float | None, status: str) -> None:
    gate = at_least("min-cosine", 0.99, value, reason="no GPU")
    assert gate.status == status
    assert gate.holds == (status == "pass")


def test_at_most_says_why_it_fails() -> None:
    gate = at_most("max-size-mb", 50, 61.25, reason="", mend="quantise more layers")
    assert (gate.status, gate.reason) == ("fail", "61.25 is above 50")
    assert gate.mend == "quantise more layers"


def test_nan_never_passes() -> None:
    assert at_least("a", 0.5, float("nan"), reason="").status == "fail"
    assert at_most("a", 0.5, float("nan"), reason="").status == "fail"


def test_what_was_not_executed_passes_only_by_name() -> None:
    gates = [
        at_least("min-speedup.tensorrt-rtx", 1.5, None, reason="no GPU"),
        at_least("min-speedup.onnxruntime", 1.5, 1.0, reason=""),
    ]
    assert len(failures(gates)) == 2
    allowed = allow(gates, ["min-speedup.tensorrt-rtx"])
    assert [gate.name for gate in failures(allowed)] == ["min-speedup.onnxruntime"]
    assert [gate.name for gate in failures(allow(gates, ["min-speedup"]))] == [
        "min-speedup.onnxruntime"
    ]
    assert len(failures(allow(gates, ["min-speed"]))) == 2
