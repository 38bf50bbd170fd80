"""onnxsim's structured pruning of a graph, run by a Python that has it: for compress.py --onnxsim.

    PYTHON compress_peer_onnxsim.py MODEL.onnx OUT.onnx FEEDS.npz METHOD NEURONS HEADS

METHOD is magnitude or wanda. FEEDS holds arrays `INDEX/INPUT`. Prints which weights became smaller.
"""

import json
import sys

import numpy as np
import onnx
import onnxsim


def main() -> None:
    source, target, feeds, method, neurons, heads = sys.argv[1:]
    model, given = onnx.load(source), read(feeds)
    before = shapes(model)
    if method == "wanda":
        model = onnxsim.apply_attention_head_wanda_pruning(model, given, sparsity=float(heads))
        model = onnxsim.apply_structured_wanda_pruning(model, given, sparsity=float(neurons))
    else:
        model = onnxsim.apply_attention_head_pruning(model, sparsity=float(heads))
        model = onnxsim.apply_structured_pruning(model, sparsity=float(neurons))
    onnx.save(model, target)
    after = shapes(model)
    smaller = sum(1 for name, shape in after.items() if before.get(name, shape) != shape)
    print(json.dumps({"onnxsim": onnxsim.__version__, "weights_changed": smaller}))


def shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {each.name: tuple(each.dims) for each in model.graph.initializer if len(each.dims) == 2}


def read(path: str) -> list[dict[str, np.ndarray]]:
    made: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as found:
        for name in found.files:
            index, _, each = name.partition("/")
            made.setdefault(index, {})[each] = found[name]
    return list(made.values())


if __name__ == "__main__":
    main()
