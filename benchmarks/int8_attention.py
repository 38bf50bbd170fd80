"""Attention in INT8 on ONNX Runtime's CPU: what its MatMuls would gain, and what they would cost.

    python benchmarks/int8_attention.py [--threads 1] [--rounds 40] [--accuracy] [--json]

ONNX Runtime has no attention kernel of INT8 (QAttention's own is float behind an INT8 projection),
so that q k^T and p v would be integer MatMuls with a mask, a softmax and a rounding between them,
and heads moved apart before and together after. Rows compare that chain, and the chain with q k^T
alone in INT8, with the one float kernel that our engines use. A decoder's attention can read a
cache of INT8 there: rows `AxB after C` are B new tokens after C in the cache. `--accuracy` rounds
q, k, v and the softmax of MiniLM's attention, beside the INT8 of its weights, and gives the cosine
of its embeddings with float's.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

#: Batch, tokens, heads, width of a head.
SHAPES = ((1, 32, 12, 32), (1, 128, 12, 32), (8, 128, 12, 32), (1, 256, 12, 64), (1, 512, 12, 64))
MICROSOFT = "com.microsoft"
FIGURES = ("ms", "speedup", "mean_cosine")
CONSTANTS: Mapping[str, Any] = {
    "step": np.float32(0.03),
    "half": np.uint8(128),
    "none": np.int8(0),
    "part": np.float32(1 / 255),
    "zero": np.uint8(0),
}
Feed = Mapping[str, np.ndarray]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def node(
    op: str, inputs: Sequence[str], output: str | Sequence[str], domain: str = "", **more: Any
) -> Any:
    outputs = [output] if isinstance(output, str) else list(output)
    return helper.make_node(op, list(inputs), outputs, domain=domain, **more)


def fused(heads: int) -> list[Any]:
    more = {"q_num_heads": heads, "kv_num_heads": heads, "scale": 1.0}
    return [node("Attention", ("q", "k", "v", "rows"), "y", **more)]


def chain(heads: int, width: int, *, values: bool) -> list[Any]:
    """q k^T in INT8, p v too where `values`; q, k, v come as uint8 and int8 from their MatMuls."""
    split = {name: ("q8", "k8", "v8" if values else "v")[index] for index, name in enumerate("qkv")}
    nodes: list[Any] = []
    for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            node("Reshape", (split[name], "heads"), f"{name}.split"),
            node("Transpose", (f"{name}.split",), f"{name}.heads", perm=perm),
        ]
    product = ("q.heads", "k.heads", "step", "step", "half", "none")
    nodes += [
        node("MatMulIntegerToFloat", product, "scores", MICROSOFT),
        node("Add", ("scores", "keys"), "seen"),
        node("Softmax", ("seen",), "p", axis=-1),
    ]
    if values:
        product = ("p8", "v.heads", "part", "step", "zero", "none")
        nodes += [
            node("QuantizeLinear", ("p", "part", "zero"), "p8"),
            node("MatMulIntegerToFloat", product, "mixed", MICROSOFT),
        ]
    else:
        nodes.append(node("MatMul", ("p", "v.heads"), "mixed"))
    merged = [node("Transpose", ("mixed",), "turned", perm=[0, 2, 1, 3])]
    return [*nodes, *merged, node("Reshape", ("turned", "merged"), "y")]


def session(
    nodes: list[Any],
    feed: Feed,
    constants: Mapping[str, Any],
    threads: int,
    outputs: Sequence[str] = ("y",),
) -> Any:
    used = {name for each in nodes for name in each.input}
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape)
        )
        for name, array in feed.items()
        if name in used
    ]
    given = [onnx.ValueInfoProto(name=name) for name in outputs]
    held = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used]
    graph = helper.make_graph(nodes, "attention", inputs, given, held)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def interleaved(
    label: str, runs: Mapping[str, tuple[Any, Feed]], threads: int, rounds: int
) -> list[dict[str, Any]]:
    """Median milliseconds of CPU, of the clock with more threads; the first is what others beat."""
    clock = time.process_time if threads == 1 else time.perf_counter
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (run, feed) in runs.items():
            given = {each.name: feed[each.name] for each in run.get_inputs()}
            started = clock()
            run.run(None, given)
            spent[name].append(1e3 * (clock() - started))
    median = {name: float(np.median(each)) for name, each in spent.items()}
    first = next(iter(median.values()))
    return [
        {"model": label, "method": name, "ms": round(each, 3), "speedup": round(first / each, 3)}
        for name, each in median.items()
    ]


def kernels(shape: tuple[int, int, int, int], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Attention of an encoder, of q, k and v that come from their MatMuls."""
    batch, tokens, heads, width = shape
    random = np.random.default_rng(0)
    flat = (batch, tokens, heads * width)
    feed: dict[str, np.ndarray] = {
        name: random.normal(size=flat).astype(np.float32) / 2 for name in "qkv"
    }
    feed["rows"] = np.zeros((batch, 1, tokens, tokens), np.float32)
    feed["keys"] = np.zeros((batch, 1, 1, tokens), np.float32)
    feed["q8"] = random.integers(0, 256, flat).astype(np.uint8)
    for name in ("k8", "v8"):
        feed[name] = random.integers(-127, 128, flat).astype(np.int8)
    split, merged = (
        np.array(size, np.int64) for size in ((0, 0, heads, width), (0, 0, heads * width))
    )
    constants = {**CONSTANTS, "heads": split, "merged": merged}
    graphs = {
        "float, one kernel": fused(heads),
        "q k^T in INT8": chain(heads, width, values=False),
        "q k^T and p v in INT8": chain(heads, width, values=True),
    }
    runs = {
        name: (session(nodes, feed, constants, asked.threads), feed)
        for name, nodes in graphs.items()
    }
    label = f"{batch}x{tokens}, {heads} heads of {width}"
    return interleaved(label, runs, asked.threads, asked.rounds)


def rows(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from int8_attention_cache import caches

    for shape in SHAPES:
        yield from kernels(shape, asked)
    yield from caches(asked.threads, asked.rounds)
    if asked.accuracy:
        from int8_attention_cost import cosines

        yield from cosines(asked.threads)


def main() -> None:
    asked, found = arguments(), list[dict[str, Any]]()
    for row in rows(asked):
        found.append(row)
        words = f"{row['model']:24} {row['method']:24}"
        figures = "  ".join(f"{key} {row[key]:g}" for key in FIGURES if key in row)
        print(words, figures, file=sys.stderr if asked.json else sys.stdout, flush=True)
    if asked.json:
        facts = {
            "threads": asked.threads,
            "onnxruntime": ort.__version__,
            "load": os.getloadavg()[0],
        }
        print(json.dumps({"rows": found, "environment": facts}))


if __name__ == "__main__":
    main()
