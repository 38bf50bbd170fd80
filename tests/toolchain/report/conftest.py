"""A report with a line of every kind: a pass, a failure, something not executed, hostile names."""

from typing import Any

import pytest
from llmdeploy.toolchain.report import Report

HOSTILE = '<script>alert("&\'|`")</script>'


def stage(name: str, **more: Any) -> dict[str, Any]:
    absent = {
        f"{figure}_reason": "not measured in this stage"
        for figure in ("parity", "score", "latency_ratio")
        if figure not in more
    }
    line = {"name": name, "seconds": 1.5, "peak_memory_bytes": 10**9, "size_bytes": 90_900_000}
    return line | {"digest": f"{name}-digest"} | absent | more


@pytest.fixture
def data() -> dict[str, Any]:
    return {
        "tool": {"version": "0.0.0"},
        "created": "2026-01-02T03:04:05Z",
        "verdict": "fail",
        "model": {
            "checkpoint": HOSTILE,
            "task": "feature-extraction",
            "architecture": "BertModel",
            "digest": "checkpoint-digest",
            "parameters": 22_700_000,
        },
        "stages": [
            stage("export", inputs={"checkpoint": "checkpoint-digest"}, fresh=True),
            stage(
                "quantize",
                inputs={"optimize": "optimize-digest"},
                parity={"max_rel": 0.02, "cosine_mean": 0.99712, "against": "export"},
                score=0.655,
                latency_ratio=2.41,
            ),
        ],
        "passes": [
            {
                "name": name,
                "modified": name == "fuse",
                "nodes_before": 500,
                "nodes_after": 300,
                "bytes_before": 10**8,
                "bytes_after": 9 * 10**7,
                "applications": {"layer-norm": 13},
                "proved": 12,
                "local_error": 2e-7,
                "failures": [{"rule": "wrong", "node": HOSTILE, "reason": "error 0.4"}],
                "seconds": 0.2,
                **({"max_error": 1.2e-6} if name == "fuse" else {}),
            }
            for name in ("clean", "fuse")
        ],
        "calibration": {
            "samples": 256,
            "source": HOSTILE,
            "digest": "samples-digest",
            "texts": 256,
            "tokens": 20_000,
            "seed": 0,
            "method": "auto",
            "notes": [HOSTILE],
        },
        "quantization": {
            "int8_share": 0.97,
            "curve": [
                {"int8_share": share, "drop": drop}
                for share, drop in ((1.0, 0.0021), (0.96, 0.0009), (0.5, 0.0003))
            ],
            "layers": [
                {
                    "node": f"layer.{index}/{HOSTILE}",
                    "k": 384,
                    "n": 1536,
                    "macs": 384 * 1536,
                    "int8": index != 2,
                    "reason": "below the budget" if index == 2 else "",
                    "smoothing": 0.8,
                    "observer": "min-max",
                    "range": [-3.0, 3.0],
                    "snr_db": 20.0 + index,
                    "error_share": 0.25,
                    "histogram": [900, 400, 90, 12 + index, 0, 1, 0, 0],
                    "histogram_width": 0.5,
                    "seen": [-2.9, 3.0],
                }
                for index in range(4)
            ],
            "notes": ["one layer kept in float"],
        },
        "engines": [
            {
                "backend": "onnxruntime",
                "precision": "int8",
                "size_bytes": 30_000_000,
                "executed": True,
                "facts": {"providers": ["CPUExecutionProvider"]},
            },
            {
                "backend": "tensorrt-rtx",
                "precision": "int8",
                "size_bytes": 31_000_000,
                "executed": False,
                "reason": "no GPU",
            },
        ],
        "parity": [
            {
                "name": "optimize",
                "against": "export",
                "ok": True,
                "samples": 8,
                "outputs": [{"name": "sentence_embedding", "max_abs": 0.0, "snr_db": float("inf")}],
            },
            {
                "name": HOSTILE,
                "against": "export",
                "ok": False,
                "samples": 8,
                "outputs": [{"name": HOSTILE, "max_rel": 0.4, "cosine_mean": 0.7}],
                "agreement": [
                    {
                        "name": HOSTILE,
                        "places": 512,
                        "argmax": 0.75,
                        "top_k": 0.9,
                        "k": 5,
                        "kl_mean": 0.02,
                        "kl_max": 0.4,
                    }
                ],
                "located": {
                    "tensor": HOSTILE,
                    "node": f"MatMul {HOSTILE}",
                    "by": HOSTILE,
                    "error": 0.5,
                    "reason": "3 of 40 shared tensors differ",
                },
                "reason": "cosine 0.7 is under 0.99\x00",
                "mend": "llmdeploy inspect artifacts/quantize",
            },
            {"name": "tensorrt-rtx", "against": "quantize", "reason": "not executed here: no GPU"},
        ],
        "scores": [
            {"name": "export", "metric": "pearson", "value": 0.656, "against_float": 1.0},
            {"name": "rtx", "metric": "pearson", "value_reason": "not executed here: no GPU"},
        ],
        "latency": [
            {
                "name": name,
                "batch": 1,
                "sequence": 128,
                "median_ms": median,
                "low_ms": median * 0.97,
                "high_ms": median * 1.04,
                "p90_ms": median * 1.2,
                "p99_ms": median * 2,
                "deciles": [median * (0.8 + each / 12) for each in range(11)],
                "ratio": 20 / median,
                "call": "faster" if median < 20 else "within noise",
                "threads": 2,
                "runs": 50,
            }
            for name, median in (("fp32", 20.0), ("int8", 9.0))
        ],
        "footprints": [
            {
                "name": name,
                "open_ms": 90.0,
                "first_ms": 12.5,
                "peak_bytes": peak,
                "before_bytes": 50_000_000,
                "runs": 3,
            }
            for name, peak in (("float/onnxruntime", 190_000_000), (HOSTILE, 140_000_000))
        ],
        "gates": [
            {"name": "min-int8-share", "limit": 0.8, "value": 0.97, "status": "pass"},
            {
                "name": "min-cosine",
                "limit": 0.99,
                "value": 0.7,
                "status": "fail",
                "reason": "the mean cosine is under the limit",
                "mend": "llmdeploy inspect artifacts/quantize",
            },
            {
                "name": "min-speedup",
                "limit": 1.5,
                "status": "not-executed",
                "reason": "tensorrt-rtx cannot be executed here",
            },
        ],
        "bundles": [
            {
                "kind": "edge",
                "path": f"bundle/edge/{HOSTILE}.tar.zst",
                "sha256": "ab" * 32,
                "bytes": 40_000_000,
                "verification": {"ok": True, "without_torch": True},
            }
        ],
        "environment": {
            "cpu": "a CPU",
            "cores": 2,
            "memory_bytes": 24 * 10**9,
            "os": "Linux",
            "python": "3.11",
            "packages": {"onnxruntime": "1.32.0"},
            "threads": 2,
            "seed": 0,
        },
    }


@pytest.fixture
def report(data: dict[str, Any]) -> Report:
    return Report.model_validate(data)
