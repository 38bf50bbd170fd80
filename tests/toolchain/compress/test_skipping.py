"""Layers left out one at a time, run stretch by stretch: the losses of the whole model at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy.deploy.signature import Signature
from llmdeploy.passes import load
from llmdeploy.passes.coupling import Group, groups
from llmdeploy.passes.infer import infer
from llmdeploy.passes.prune import Prune
from llmdeploy.passes.sites import by_name
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.compress import depth
from llmdeploy.toolchain.compress.known import Known, learned
from llmdeploy.toolchain.compress.skipping import Layer, Skips
from llmdeploy.toolchain.compress.subject import Subject
from llmdeploy.toolchain.compress.trial import Changed, Trial
from llmdeploy.toolchain.config import Config, Model
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace


def subject_of(checkpoint: Path, folder: Path) -> Subject:
    """The optimised graph of a checkpoint on random tokens, a row of them padded."""
    run = Run(Config(model=Model(checkpoint=str(checkpoint))), Workspace(folder / "artifacts"))
    with run.workspace.locked():
        stages.optimize(run)
    known, random = Signature.load(run.folder("export")), np.random.default_rng(0)
    sizes = {"batch": 2, "sequence": 9, "past": 0, "total": 9}
    feeds: list[dict[str, Any]] = []
    for _ in range(4):
        feed: dict[str, Any] = {}
        for each in known.inputs:
            shape: list[Any] = [sizes.get(str(dim), dim) for dim in each.shape]
            ids, mask = each.role == "input_ids", each.role == "attention_mask"
            feed[each.name] = (
                random.integers(3, 40, shape) if ids else np.full(shape, int(mask), each.dtype)
            )
        feed["attention_mask"][1, 6:] = 0
        feeds.append(feed)
    logits = tuple(each.name for each in known.outputs if each.name == "logits")
    model = run.folder("optimize") / "model.onnx"
    return Subject(model, feeds[:3], feeds[3:], "attention_mask", logits)


def prepared(subject: Subject, folder: Path) -> tuple[ir.Model, list[Layer], Known]:
    model = load(subject.model)
    by_name(model)
    infer(model)
    found = groups(model)[0]
    known = learned(subject, model, found, Prune(layers=0.5), folder)
    return model, depth.layers_of(model, found)[0], known


def none(group: Group, known: Known) -> dict[str, Changed]:
    weight = known.weights[group.consumer]
    mean = known.means[group.consumer] @ weight
    return {group.consumer: (np.zeros(weight.shape, np.float32), mean)}


@pytest.mark.parametrize("kind", [pytest.param("llama", marks=pytest.mark.slow), "bert"])
def test_a_layer_less_costs_what_it_costs_the_whole_model(
    kind: str, tmp_path: Path, give_llama: Callable[..., Path], tiny_bert: Path
) -> None:
    """Weights of none in the model as a whole give the same losses, layers gone before or not."""
    checkpoint = give_llama(tmp_path / "c", num_hidden_layers=4) if kind == "llama" else tiny_bert
    subject = subject_of(checkpoint, tmp_path)
    model, layers, known = prepared(subject, tmp_path / "seen")
    assert len(layers) >= 2
    skips = Skips(subject, model, layers, known, tmp_path / "aside")
    with Trial(subject, [each.consumer for pair in layers for each in pair]) as trial:
        for gone in ([], [0], [1]) if len(layers) == 2 else ([], [1], [2], [2, 0]):
            found = skips.losses(gone)
            assert set(found) == set(range(len(layers))) - set(gone)
            for at, loss in found.items():
                changed: dict[str, Changed] = {}
                for pair in (layers[each] for each in (*gone, at)):
                    changed |= none(pair[0], known) | none(pair[1], known)
                assert loss == pytest.approx(trial.loss(changed), rel=1e-3, abs=1e-7)
                assert loss > 0
