"""The verbs that end something: build, verify, bundle, release."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import BundleError, MissingError
from ..deploy.contents import stated_date
from ..deploy.gate import Gate, failures
from ..deploy.trial import why
from . import checks, registry, report, scoring
from .against import last
from .judging import gates
from .keeping import wanted
from .packing import builder, contents
from .preflight import preflight, suits
from .reporting import compile_report
from .run import Run
from .sampled import sample_options
from .signed import signed, signer_digests
from .stages import engine, export, float_engine, neutral, slim
from .workspace import digest_of

#: What the bundle's own verification must do without.
HIDDEN = "torch,transformers,onnxscript"
#: What of a report goes into a bundle that is made anew when it changes; its clock times are not.
TOLD = {"model", "gates", "parity", "scores", "latency", "footprints", "quantization"}


@dataclass(frozen=True)
class Outcome:
    """A verb's report, the gates that do not hold, and where the report was written."""

    report: report.Report
    failures: tuple[Gate, ...]
    files: tuple[Path, ...]

    @property
    def exit_code(self) -> int:
        """0, or 1 where a gate failed: it was made, it is not fit to ship."""
        return 1 if self.failures else 0


def build(run: Run) -> Outcome:
    """All that is missing up to the engines, and the parity of each step.

    What cannot be executed here is said and does not fail: only `verify` and what ships ask it.
    """
    outcome = _outcome(run, _build(run), write=False)
    failed = tuple(gate for gate in outcome.failures if gate.status == "fail")
    return replace(outcome, failures=failed)


def verify(run: Run) -> Outcome:
    """Build what is missing, then score, time and hold every gate; write the report."""
    unexecuted = _build(run)
    _measure(run)
    return _outcome(run, unexecuted)


def bundle(run: Run, kinds: Sequence[str]) -> Outcome:
    """Verify, and pack what is fit to ship; nothing is packed when a gate does not hold."""
    outcome = verify(run)
    if outcome.failures:
        return outcome
    packed = [_pack(run, kind, outcome) for kind in dict.fromkeys(kinds)]
    unexecuted = _unexecuted(run)
    found = gates(run, unexecuted)
    made = compile_report(run, found, unexecuted, packed)
    return Outcome(made, failures(found), report.write(made, run.workspace.root))


def release(run: Run) -> Outcome:
    """All of it, with gates."""
    return bundle(run, run.config.bundle.kinds)


def _build(run: Run) -> dict[str, str]:
    preflight(run)
    if run.config.gate.last_release:  # what cannot be held against is said before all the work
        last(run)
    export(run)
    suits(run)
    wanted(run)  # that there is no cache to be int8 is said before all the work
    checks.export_parity(run)
    checks.optimize_parity(run)
    if slim(run).name == "compress":
        checks.compress_parity(run)
    if neutral(run).name == "quantize" and run.config.build.precision != "bf16":
        checks.quantize_parity(run)
    for name in run.config.build.backends:
        if checks.unexecutable(name):
            engine(run, name)
        else:
            checks.engine_parity(run, name)
    return _unexecuted(run)


def _unexecuted(run: Run) -> dict[str, str]:
    names = run.config.build.backends
    reasons = {f"engine/{name}": checks.unexecutable(name) for name in names}
    if run.config.build.precision == "bf16":
        reasons["quantize"] = "ONNX Runtime computes no bfloat16 on a CPU"
    return {name: reason for name, reason in reasons.items() if reason}


def _measure(run: Run) -> None:
    if "onnxruntime" not in run.config.build.backends:
        return
    candidate = engine(run, "onnxruntime")
    checks.latency(run)
    reference = float_engine(run)
    for stage in dict.fromkeys((reference.name, candidate.name)):
        checks.footprint(run, run.stages[stage])
    if run.config.evaluation.metric:
        scoring.score(run, reference)
        if candidate is not reference:
            scoring.score(run, candidate, against=reference)


def _outcome(run: Run, unexecuted: dict[str, str], write: bool = True) -> Outcome:
    found = gates(run, unexecuted)
    made = compile_report(run, found, unexecuted)
    files = report.write(made, run.workspace.root) if write else ()
    return Outcome(made, failures(found), files)


def _pack(run: Run, kind: str, outcome: Outcome) -> report.Bundle:
    packager = registry.find("packagers", kind)

    def work(out: Path) -> dict[str, Any]:
        made = packager(contents(run, outcome.files), out)
        return signed(made, out, run.config.bundle, run.config.path) if kind == "edge" else made

    inputs = {
        name: stage.digest
        for name, stage in run.stages.items()
        if name.startswith(("engine/", "quantize", "export"))
    }
    inputs |= {"told": digest_of(outcome.report.model_dump(mode="json", include=TOLD))}
    inputs |= {"configuration": digest_of(run.config.model_dump(mode="json"))}
    inputs |= {"signer": digest_of(signer_digests(run.config.bundle, run.config.path))}
    options = {**run.config.bundle.model_dump(exclude={"python", "kinds"}), **sample_options(run)}
    options |= _stated()
    stage = run.stage(f"bundle/{kind}", work, inputs=inputs, options=options, packages=())
    path = run.folder(stage.name) / stage.results["path"]
    return report.Bundle(
        kind=kind,
        path=str(path),
        sha256=stage.results["sha256"],
        bytes=stage.results["bytes"],
        verification=_selfcheck(run, path.parent / stage.results.get("verify", path.name)),
    )


def _stated() -> dict[str, str]:
    """What a bundle says of its making that is read off the environment: its date and builder."""
    date = stated_date()
    said = {"created": date.isoformat() if date else "", "builder": builder(os.environ)}
    return {name: value for name, value in said.items() if value}


def _selfcheck(run: Run, path: Path) -> dict[str, Any]:
    """The bundle's own verification in a new process that cannot import torch.

    Raises:
        BundleError: it does not verify.
        MissingError: what it needs is not where it was tried.
    """
    python = run.config.bundle.python or sys.executable
    command = [python, "-m", "llmdeploy.deploy.selfcheck", str(path), "--hide", HIDDEN]
    with run.watch("bundle verifies itself"):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_plain())
    try:
        found = json.loads(done.stdout)
    except ValueError as error:
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        raise BundleError(f"the bundle cannot verify itself: {last}", where=path) from error
    if done.returncode or not found.get("ok"):
        kind = MissingError if found.get("kind") == MissingError.__name__ else BundleError
        raise kind(f"the bundle does not verify: {why(found)}", where=path)
    return found


def _plain() -> dict[str, str]:
    """Environment variables without what would show the child this process's packages."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
