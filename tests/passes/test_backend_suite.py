"""ONNX's own backend tests: no pass changes what a model of them computes."""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from llmdeploy import PassError
from llmdeploy.passes import PassManager
from llmdeploy.passes.clean import Clean
from llmdeploy.passes.contract import CLOSE, error
from llmdeploy.passes.fold import Fold
from llmdeploy.passes.fuse import Fuse
from onnx.backend.test.loader import load_model_tests
from onnx.reference import ReferenceEvaluator

#: Refused by ONNX's own checker: its MeanVarianceNormalization expands to what it then rejects.
INVALID = {"test_mvn"}
# Random operators, a training operator, and types that neither runtime takes.
FEWEST = {"unchanged": 1200, "agrees": 400}


def built():
    """Cases that onnx makes in memory: a model, and feeds by input name."""
    from onnx.backend.test.case.model import collect_testcases as models
    from onnx.backend.test.case.node import collect_testcases as nodes

    for case in (*nodes(None), *models()):
        if case.model is not None and case.data_sets:
            names = [value.name for value in case.model.graph.input]
            yield (
                case.name,
                case.model,
                [dict(zip(names, x, strict=False)) for x, _ in case.data_sets],
            )


def stored():
    """Cases that lie in the onnx package as files."""
    for kind in ("simple", "pytorch-operator", "pytorch-converted"):
        for case in load_model_tests(kind=kind):
            folder = Path(case.model_dir)
            model = onnx.load(folder / "model.onnx")
            names = [value.name for value in model.graph.input]
            feeds = []
            for data in sorted(folder.glob("test_data_set_*")):
                files = [data / f"input_{index}.pb" for index in range(len(names))]
                found = [onnx.TensorProto.FromString(f.read_bytes()) for f in files if f.is_file()]
                feeds.append(dict(zip(names, found, strict=False)))
            yield case.name, model, feeds


def plain(value):
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def run(proto, feed, by):
    if by == "reference":
        return ReferenceEvaluator(proto).run(None, feed)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(proto.SerializeToString(), options)
    names = {value.name for value in session.get_inputs()}
    return session.run(None, {name: feed[name] for name in feed if name in names})


def first_run(proto, feeds):
    """The outputs, by ONNX Runtime if it takes the model, else by the reference, else None."""
    for by in ("onnxruntime", "reference"):
        try:
            return by, [run(proto, feed, by) for feed in feeds]
        except Exception:
            continue
    return None, None


def difference(before, after):
    """The worst error over outputs, infinite where they are not arrays of one kind."""
    worst = 0.0
    for one, two in zip(before, after, strict=True):
        if isinstance(one, list):
            worst = max(worst, difference(one, two))
        elif isinstance(one, np.ndarray) and one.dtype.kind != "O":
            worst = max(worst, error(one, two) - CLOSE.allowed(one.dtype))
    return worst


def judge(name, proto, feeds):
    """What became of one case, and the problem if there is one."""
    feeds = [{key: plain(value) for key, value in feed.items()} for feed in feeds]
    by, before = first_run(proto, feeds)
    if by is None:
        return "cannot be run", None
    try:
        model, steps = PassManager([Clean(), Fold(), Fuse(), Clean()]).run(ir.from_proto(proto))
    except PassError as problem:
        return ("invalid", None) if name in INVALID else ("refused", str(problem))
    if not any(step.modified for step in steps):
        return "unchanged", None
    after = [run(ir.to_proto(model), feed, by) for feed in feeds]
    worst = max(difference(one, two) for one, two in zip(before, after, strict=True))
    return ("agrees", None) if worst <= 0 else ("differs", f"by {worst}")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_backend_case_is_numerically_unchanged():
    ort.set_default_logger_severity(4)
    outcomes, problems = Counter(), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, proto, feeds in (*built(), *stored()):
            outcome, problem = judge(name, proto, feeds)
            outcomes[outcome] += 1
            if problem:
                problems[name] = problem
    assert problems == {}
    assert all(outcomes[key] >= fewest for key, fewest in FEWEST.items()), outcomes
