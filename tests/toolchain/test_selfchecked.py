"""What a release says of a bundle that does not verify itself."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from llmdeploy import BundleError, Error, MissingError
from llmdeploy.toolchain import release

FAILED = [
    {"name": "engine tensorrt", "ok": None, "detail": "not executed here"},
    {"name": "golden 0", "ok": False, "detail": "logits has a NaN or Inf"},
]


@pytest.mark.parametrize(
    ("record", "code", "kind", "says"),
    [
        ({"kind": "MissingError", "error": "no onnxruntime, pip"}, 4, MissingError, "no onnxrun"),
        ({"kind": "BuildError", "error": "cannot load"}, 3, BundleError, "cannot load"),
        ({"checks": FAILED}, 1, BundleError, "golden 0: logits has a NaN"),
    ],
)
def test_the_reason_of_a_failed_selfcheck_is_said(
    tmp_path: Path, record: dict[str, Any], code: int, kind: type[Error], says: str
) -> None:
    python = tmp_path / "python"
    text = json.dumps({"ok": False, **record})
    python.write_text(f"#!/bin/sh\ncat <<'E'\n{text}\nE\nexit {code}\n")
    python.chmod(0o755)
    run: Any = SimpleNamespace(
        config=SimpleNamespace(bundle=SimpleNamespace(python=str(python))),
        watch=lambda _: contextlib.nullcontext(),
    )
    with pytest.raises(kind, match=f"does not verify: {says}"):
        release._selfcheck(run, tmp_path / "x.tar.zst")
