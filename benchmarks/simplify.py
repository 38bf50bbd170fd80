"""Optimise one ONNX file with one tool, alone in this process: its seconds and peak memory.

    python benchmarks/simplify.py METHOD SOURCE TARGET

Run by passes.py, with the interpreter of the environment that has the tool.
"""

import json
import resource
import sys
import time
from pathlib import Path


def llmdeploy(source: Path, target: Path) -> None:
    from llmdeploy.passes import PassManager, load, save
    from llmdeploy.passes.clean import Clean
    from llmdeploy.passes.fold import Fold
    from llmdeploy.passes.fuse import Fuse

    model, _ = PassManager([Clean(), Fold(), Fuse(), Clean()]).run(load(source))
    save(model, target.parent)


def onnxslim(source: Path, target: Path) -> None:
    import onnxslim

    onnxslim.slim(str(source), str(target), save_as_external_data=True)


def onnxsim(source: Path, target: Path) -> None:
    import onnx
    import onnxsim

    model, _ = onnxsim.simplify(str(source))
    onnx.save(model, target, save_as_external_data=True, location=f"{target.name}.data")


def onnxscript(source: Path, target: Path) -> None:
    import onnx_ir as ir
    from onnxscript import optimizer

    model = ir.load(source)
    optimizer.optimize_ir(model)
    ir.save(model, target, external_data=f"{target.name}.data")


def onnxruntime(source: Path, target: Path) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    options.intra_op_num_threads, options.log_severity_level = 2, 3
    name = "session.optimized_model_external_initializers_file_name"
    options.add_session_config_entry(name, f"{target.name}.data")
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


METHODS = {each.__name__: each for each in (llmdeploy, onnxslim, onnxsim, onnxscript, onnxruntime)}
IMPORTS = {
    "llmdeploy": ("llmdeploy.passes", "llmdeploy.passes.fold", "llmdeploy.passes.fuse"),
    "onnxslim": ("onnxslim",),
    "onnxsim": ("onnxsim", "onnx"),
    "onnxscript": ("onnxscript.optimizer", "onnx_ir"),
    "onnxruntime": ("onnxruntime",),
}


def main() -> None:
    method, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    for name in IMPORTS[method]:
        __import__(name)
    started = time.perf_counter()
    METHODS[method](source, target)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": round(seconds, 3), "peak_memory_bytes": peak()}))


def peak() -> int:
    """The most resident bytes since this process began; getrusage would count the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
