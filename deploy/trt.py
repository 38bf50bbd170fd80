"""The `tensorrt` and `tensorrt-rtx` backends: one implementation over either module."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .. import BuildError, MissingError
from . import gpu, trt_options
from .backend import Built, Profile, Run, Takes
from .trt_operators import OPSETS
from .trt_options import Options, arguments

if TYPE_CHECKING:
    import onnx_ir as ir

    from .audit import Audit

PLAN = "engine.plan"
SWITCH = "POLYGRAPHY_USE_TENSORRT_RTX"
PRECISIONS = frozenset({"fp32", "fp16", "bf16", "int8", "fp8", "w8", "int4"})
#: What TensorRT-RTX 1.7 builds for where nothing is asked for.
PORTABLE = ("8.0", "8.6", "8.9", "12.0")
#: Those of them that have FP8.
FP8 = PORTABLE[2:]


class _TensorRt:
    """What both share; precision is the graph's own, the network is strongly typed."""

    name: ClassVar[str]
    module: ClassVar[str]
    precisions: ClassVar[frozenset[str]] = PRECISIONS
    #: Its compiler fuses attention that is written out, and has no kernel for one of float32.
    takes: ClassVar[Takes] = Takes(opsets=OPSETS)
    accepts: ClassVar[type[Options]] = Options
    refuses: ClassVar[Mapping[str, str]]

    def missing(self) -> str | None:
        """Why no engine can be built here, with the mend."""
        raise NotImplementedError

    def unexecutable(self) -> str | None:
        """Why no engine can be executed here: a package or a GPU is missing."""
        return self.missing() or gpu.unusable()

    def lowering(self, precision: str) -> Sequence["ir.passes.PassBase"]:
        """The neutral graph is written as TensorRT wants it, but for sequences."""
        from .sequences import SplitSequences

        return (SplitSequences(),)

    def build(
        self, model: Path, folder: Path, profile: Profile, options: Mapping[str, object]
    ) -> Built:
        """Compile `engine.plan` in a child process.

        Raises:
            MissingError: the module is not here, or it needs a GPU.
            ConfigError: an option or a dimension that does not fit.
            BuildError: the graph has what TensorRT does not take, or TensorRT logged an error.
        """
        why = self.missing()
        if why:
            raise MissingError(why, where=f"backend {self.name}")
        chosen = trt_options.read(self.name, options, gpu.unusable())
        _refuse(model, self.name)
        folder.mkdir(parents=True, exist_ok=True)
        spec = self._spec(model, folder, profile, chosen)
        result = _child(spec, chosen.seconds, rtx=self.module == "tensorrt_rtx")
        facts = self._facts(model, folder, chosen, spec, result)
        return Built((PLAN,), facts)

    @contextmanager
    def runner(self, folder: Path) -> Generator[Run]:
        """Open the plan on the GPU; MissingError where none answers."""
        why = self.unexecutable()
        if why:
            mend = "run it on a machine with an NVIDIA GPU"
            raise MissingError(
                f"the engine cannot be executed here: {why}", where=folder, mend=mend
            )
        from .trt_runner import open_plan

        with open_plan(self.module, folder / PLAN) as run:
            yield run

    def _spec(
        self, model: Path, folder: Path, profile: Profile, options: Options
    ) -> dict[str, Any]:
        from .shapes import consistent, phases, shapes
        from .trt_lint import float_attention

        further = phases(profile.dims) if options.profiles is None else options.profiles
        others = ({**profile.dims, **each} for each in further)
        profiles = [consistent(dims) for dims in (profile.dims, *others)]
        return {
            "module": self.module,
            "model": str(model.resolve()),
            "engine": str((folder / PLAN).resolve()),
            "profiles": [shapes(model, dims) for dims in profiles],
            "decompose_attention": float_attention(model),
            "inspect": gpu.unusable() is None,
            "config": arguments(options, self.module),
        }

    def _facts(
        self,
        model: Path,
        folder: Path,
        options: Options,
        spec: dict[str, Any],
        result: dict[str, Any],
    ) -> dict[str, Any]:
        from .audit import audit
        from .trt_plan import header

        figures = dict(result["facts"])
        checked = audit(model, figures.get("weights_memory_bytes"))
        kinds, checked = _kinds(figures.pop("inspector", None), checked)
        why = gpu.unusable()
        rtx = self.module == "tensorrt_rtx"
        portable = FP8 if "FLOAT8E4M3FN" in checked.asked else PORTABLE
        return {
            "module": self.module,
            **figures,
            "plan_version": header(folder / PLAN).version,
            "compute_capabilities": list(options.compute_capabilities or portable) if rtx else [],
            "profile": spec["profiles"],
            "tf32": options.tf32,
            "audit": asdict(checked),
            "layers_by_dtype": kinds,
            "warnings": result["warnings"],
            "executed": False,
            "reason": f"built, not executed here: {why or 'run `llmdeploy verify`'}",
        }


class TensorRtRtx(_TensorRt):
    """TensorRT-RTX: compiled ahead of time on any machine, for RTX GPUs from Ampere on."""

    name: ClassVar[str] = "tensorrt-rtx"
    module: ClassVar[str] = "tensorrt_rtx"
    #: It keeps embeddings and heads of blocks of int8 as they are.
    tables: ClassVar[bool] = True
    refuses: ClassVar[Mapping[str, str]] = trt_options.REFUSED["tensorrt-rtx"]

    def missing(self) -> str | None:
        """Why no engine can be built here: the module is not installed."""
        if importlib.util.find_spec(self.module) is None:
            return "tensorrt-rtx is not installed, pip install 'llmdeploy[rtx]'"
        return None


class TensorRt(_TensorRt):
    """TensorRT: built on the GPU that runs it."""

    name: ClassVar[str] = "tensorrt"
    module: ClassVar[str] = "tensorrt"
    refuses: ClassVar[Mapping[str, str]] = trt_options.REFUSED["tensorrt"]

    def missing(self) -> str | None:
        """Why no engine can be built here: the module or a GPU is missing."""
        mend = (
            "on a GPU host `pip install 'llmdeploy[gpu]'` and build there; tensorrt-rtx builds here"
        )
        if importlib.util.find_spec(self.module) is None:
            return f"tensorrt is not installed, {mend}"
        why = gpu.unusable()
        return f"TensorRT builds on a GPU only and there is {why}, {mend}" if why else None


def _kinds(report: str | None, checked: "Audit") -> tuple[dict[str, int] | None, "Audit"]:
    """Layers by dtype as the inspector tells, and its word over that of the bytes.

    Where no engine can be loaded there are none, and the bytes have the last word.
    """
    if report is None:
        return None, checked
    from .trt_inspector import QUANTIZED, inspect

    found = inspect(report)
    asked = QUANTIZED.intersection(checked.asked)
    if asked and not found.quantized:
        reason = f"no layer of the engine reads {', '.join(sorted(asked))}"
        checked = replace(checked, verdict="not as asked", reason=reason)
    return dict(found.kinds), checked


def _refuse(model: Path, target: str) -> None:
    from .trt_lint import lint

    found = lint(model, rtx=target == TensorRtRtx.name)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise BuildError(
            f"TensorRT does not take this graph: {found[0].what}{more}",
            where=found[0].node,
            mend=f"{found[0].mend}; `llmdeploy inspect --target {target} {model.name}` lists all",
        )


def _child(spec: dict[str, Any], seconds: int, *, rtx: bool) -> dict[str, Any]:
    """Compile in a child; its result, or a BuildError of what it or TensorRT's logger said."""
    environment = {key: value for key, value in os.environ.items() if key != SWITCH}
    command = [sys.executable, "-m", "llmdeploy.deploy.trt_worker"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(spec).encode(),
            capture_output=True,
            env={**environment, SWITCH: "1"} if rtx else environment,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        what = f"TensorRT did not finish in {seconds} s"
        raise BuildError(what, where=spec["model"], mend="raise `seconds`") from error
    if done.returncode:
        raise BuildError(*_death(done.returncode, done.stderr), where=spec["model"])
    result = json.loads(done.stdout)
    from .trt_explain import explain

    problem = explain(result["errors"], result["failure"])
    if problem:
        Path(spec["engine"]).unlink(missing_ok=True)
        raise BuildError(problem.what, where=problem.where or spec["model"], mend=problem.mend)
    return result


def _death(code: int, stderr: bytes) -> tuple[str]:
    if code == -9:
        return ("the compiler was killed, most likely for want of memory",)
    last = stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    return (f"the compiler ended with code {code}: {last[0][:200]}",)
