"""TensorRT's error messages as one line: what, at which node, the mend."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

#: A pattern of a message and its mend; the first that is found counts.
MENDS = (
    (r"tactics? to implement|workspace limit", "raise workspace-mb"),
    (r"is_decomposable", "build in fp16 or bf16, or export with --opset 20"),
    (r"Non-zero zero point", "quantise symmetrically"),
    (r"must all be positive", "give dead channels a small scale"),
    (r"Failed to import initializer|external data", "keep the weights beside the graph"),
    (r"[Pp]lugin not found|onnxOpCheckers", "write it with other operators"),
    (r"build-time constant|must be an initializer", "make it a constant of the graph"),
    (r"must have same input types", "put a Cast before it: the network is strongly typed"),
    (r"must be conformable", "mend the shapes the graph states"),
    (r"fp8_e4m3|hardware-specific|HW-specific", "drop compute capabilities below 8.9"),
    (r"[Oo]ptimization ?[Pp]rofile", "set [build.profile] for this graph"),
    (r"graph_jit.*CUDA_SUCCESS", "build it on a machine with a GPU"),
)
#: Where a message is about: the parser's node, a layer, a fused region.
NODES = (
    r"While parsing node number \d+ \[([^\]]+)\]",
    r"\{ForeignNode\[([^\]]+)\]\}",
    r"Invalid Node - (\S+)",
    r"input tensors? ([\w.]+)",
)
#: What is said beside the reason, and says nothing of it.
NOISE = ("While parsing node", "--- Begin node", "--- End node", "catchCudaError")
#: What surrounds the reason: source files, functions, codes.
WRAPPING = (
    r"ModelImporter\.cpp:\d+: ERROR: ",
    r"\w+\.cpp:\d+ In function \w+: ?",
    r"\[\d+\] ",
    r"Assertion failed: [^:]*: ",
    r"I\w+::\w+: Error Code \d+: ",
    r"\[checkMacros\.cpp::catchCudaError[^\n]*",
    r" In \w+ at /_src/[^)\s]*",
    r"^PolygraphyException: ",
)


@dataclass(frozen=True)
class Problem:
    """One failed build."""

    what: str
    where: str
    mend: str


def explain(errors: Sequence[str], failure: str) -> Problem | None:
    """The first reason that TensorRT logged, else what was raised, None when all went well."""
    if not errors and not failure:
        return None
    telling = [error for error in errors if not any(noise in error for noise in NOISE)]
    first = (telling or [failure] if failure else telling or list(errors))[0]
    everything = "\n".join([*errors, failure])
    mend = next((mend for pattern, mend in MENDS if re.search(pattern, everything)), "")
    return Problem(f"TensorRT: {_plain(first)}", _node(everything), mend)


def _plain(text: str) -> str:
    text = " ".join(text.split())
    for pattern in WRAPPING:
        text = re.sub(pattern, "", text)
    reason = text.strip()
    return "the operator is not supported" if reason == "false" else reason[:300]


def _node(text: str) -> str:
    for pattern in NODES:
        found = re.search(pattern, text)
        if found:
            return found[1].replace(" -> ", " ").replace('"', "").strip()
    return ""
