"""A decoder's attention with its cache in INT8, as ONNX Runtime's CPU has it, beside float's."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from int8_attention import MICROSOFT, interleaved, node, session

#: Batch, tokens in the cache, new tokens: SmolLM2's 9 heads of 64 that share 3 keys and values.
CACHES = ((1, 512, 1), (1, 2048, 1), (1, 8192, 1), (4, 2048, 1), (1, 0, 128), (1, 512, 128))
HEADS, KEYS, WIDTH = 9, 3, 64
STEP = np.float32(4 / 127)
Feed = Mapping[str, np.ndarray]


def caches(threads: int, rounds: int) -> Iterator[dict[str, Any]]:
    """`Attention` as our engines use it, with a cache of INT8 as they are built; and ONNX Runtime's
    `GroupQueryAttention` without and with one of its own.
    """
    for batch, past, new in CACHES:
        feed = made(batch, past, new)
        scales = {"step": np.array([STEP]), "total": np.array(past + new, np.int32)}
        graphs = {
            "float": attention(),
            "cache in INT8, as built": kept(),
            "float, grouped": grouped(),
            "cache in INT8, grouped": grouped(int8=True),
        }
        scales |= {"one": np.float32(1), "none": np.int8(0)}
        scales |= {"inverse": np.float32(1 / STEP), "heads": np.array([0, 0, KEYS, WIDTH])}
        scales["queries"] = np.array([0, 0, HEADS, WIDTH])
        runs = {}
        for name, nodes in graphs.items():
            held = narrow(feed) if name.startswith("cache") else feed
            outputs = ("y", "new_k", "new_v")
            runs[name] = (session(nodes, held, scales, threads, outputs), held)
        label = f"{batch}x{new} after {past}"
        yield from interleaved(label, runs, threads, rounds)


def made(batch: int, past: int, new: int) -> Feed:
    random = np.random.default_rng(0)
    sizes = {
        "q": (batch, new, HEADS * WIDTH),
        **dict.fromkeys("kv", (batch, new, KEYS * WIDTH)),
        **dict.fromkeys(("past_k", "past_v"), (batch, KEYS, past, WIDTH)),
    }
    feed = {name: random.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    return {**feed, "last": np.full(batch, past + new - 1, np.int32)}


def narrow(feed: Feed) -> Feed:
    rounded = {
        name: np.clip(np.rint(feed[name] / STEP), -127, 127).astype(np.int8)
        for name in ("past_k", "past_v")
    }
    return {**feed, **rounded}


def attention() -> list[Any]:
    more: dict[str, Any] = {"q_num_heads": HEADS, "kv_num_heads": KEYS, "scale": 0.125}
    made_of = ("q", "k", "v", "", "past_k", "past_v")
    return [node("Attention", made_of, ("y", "new_k", "new_v"), **more)]


def kept() -> list[Any]:
    """New tokens rounded, levels joined, floats of them all for attention; q and y are scaled."""
    nodes: list[Any] = []
    for name in "kv":
        nodes += [
            node("Reshape", (name, "heads"), f"{name}.split"),
            node("Transpose", (f"{name}.split",), f"{name}.heads", perm=[0, 2, 1, 3]),
            node("Mul", (f"{name}.heads", "inverse"), f"{name}.scaled"),
            node("QuantizeLinear", (f"{name}.scaled", "one", "none"), f"{name}.levels"),
            node("Concat", (f"past_{name}", f"{name}.levels"), f"new_{name}", axis=2),
            node("DequantizeLinear", (f"new_{name}", "one", "none"), f"{name}.all"),
        ]
    return [
        *nodes,
        node("Reshape", ("q", "queries"), "q.split"),
        node("Transpose", ("q.split",), "q.heads", perm=[0, 2, 1, 3]),
        node("Mul", ("q.heads", "step"), "q.scaled"),
        node("Attention", ("q.scaled", "k.all", "v.all"), "mixed", scale=0.125),
        node("Mul", ("mixed", "step"), "y"),
    ]


def grouped(*, int8: bool = False) -> list[Any]:
    """The contributed operator; its cache in INT8 has one step for all of it."""
    more: dict[str, Any] = {"num_heads": HEADS, "kv_num_heads": KEYS, "scale": 0.125}
    inputs = ["q", "k", "v", "past_k", "past_v", "last", "total"]
    if int8:
        inputs += ["", "", "", "", "", "step", "step"]
        more |= dict.fromkeys(("k_quant_type", "v_quant_type"), "PER_TENSOR")
        more["kv_cache_bit_width"] = 8
    return [node("GroupQueryAttention", inputs, ("y", "new_k", "new_v"), MICROSOFT, **more)]
