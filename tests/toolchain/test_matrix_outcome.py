"""What a cell of a matrix is shown by, read off its release's report."""

from datetime import UTC, datetime

from llmdeploy.toolchain.matrix.outcome import measured
from llmdeploy.toolchain.release import Outcome
from llmdeploy.toolchain.report import Report


def test_the_size_of_a_cell_is_that_of_the_engine_that_ships() -> None:
    absent = {f"{each}_reason": "none" for each in ("parity", "score", "latency_ratio")}
    stage = {"seconds": 1.0, "peak_memory_bytes": 1, "digest": "d", **absent}
    report = Report.model_validate(
        {
            "tool": {"version": "0"},
            "created": datetime.now(UTC),
            "verdict": "pass",
            "model": {"checkpoint": "m", "task": "t", "architecture": "a", "digest": "d"}
            | {"parameters": 1},
            "stages": [
                {**stage, "name": name, "size_bytes": size}
                for name, size in (("float/onnxruntime", 400), ("engine/onnxruntime", 100))
            ],
            "engines": [
                # in the order in which they are built
                {"backend": "onnxruntime", "precision": precision, "size_bytes": size}
                | {"executed": True}
                for precision, size in (("int8", 100), ("fp32", 400))
            ],
            "quantization_reason": "not asked for",
            "calibration_reason": "not asked for",
            "environment": {"cpu": "c", "cores": 1, "memory_bytes": 1, "os": "o", "python": "3"}
            | {"threads": 1, "seed": 0},
        }
    )
    made = measured(Outcome(report, (), ()), page="", made=(0, 0))
    assert made.figures["bytes"] == 100
