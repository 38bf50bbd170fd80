"""A cache as int8 in architectures that keep it otherwise: shared keys, norms of keys, windows."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llmdeploy.calibration.kept import Reach
from llmdeploy.deploy.signature import Signature
from llmdeploy.passes import PassManager, load, save
from llmdeploy.passes.cache import Kept, QuantizeCache
from llmdeploy.passes.cache_places import joined, reader
from llmdeploy.toolchain.choosing import make_pass
from llmdeploy.toolchain.config import Config
from llmdeploy.toolchain.exporter import export
from llmdeploy.toolchain.feeds.rolling import steps
from llmdeploy.toolchain.narrowing import Narrowing
from llmdeploy.toolchain.replay import opened

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PROMPT, STEPS = 12, 4


def optimised(name: str, folder: Path) -> Signature:
    """A tiny random model of the architecture as `folder`'s model.onnx."""
    known = importlib.import_module("architectures").TINY
    tiny = next(each for each in known if each.architecture == name)
    tiny.save(folder / "checkpoint")
    export(str(folder / "checkpoint"), folder / "export", task=tiny.task)
    passes = [make_pass(table) for table in Config().passes]
    model, _ = PassManager(passes).run(load(folder / "export"))
    save(model, folder)
    return Signature.load(folder / "export")


def first(known: Signature) -> dict[str, Any]:
    """A prompt and an empty cache."""
    ids = np.arange(5, 5 + PROMPT)[None]
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    given["position_ids"] = np.arange(PROMPT)[None]
    return {
        each.name: given[each.role]
        if each.role in given
        else np.zeros((1, int(each.shape[1]), 0, int(each.shape[3])), np.float32)
        for each in known.inputs
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "GPT2LMHeadModel",
        "GPTNeoXForCausalLM",
        "Qwen3ForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "MistralForCausalLM",
    ],
)
def test_numbers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    known = optimised(name, tmp_path)
    call, model = opened(tmp_path / "model.onnx"), load(tmp_path)
    feeds = list(steps(call, known, first(known), STEPS))
    wanted = [call(feed) for feed in feeds]
    pairs = {
        each.name: after.name
        for each in known.inputs
        if (after := known.output(each.role.replace("past_", "present_", 1))) is not None
        and each.role.startswith("past_")
    }
    sizes: dict[str, Any] = {}
    for past, present in pairs.items():
        found = joined(model.graph, past, present)
        assert not isinstance(found, str), found
        assert reader(found.concat.outputs[0]) is not None
        reach = Reach()
        reach.add(wanted[-1][present], None, PROMPT + STEPS)
        sizes[past] = reach.steps()
    tensors = {past: Kept(pairs[past], each) for past, each in sizes.items()}
    save(QuantizeCache(tensors=tensors)(model).model, tmp_path / "int8")
    plain = {past: tuple(map(tuple, each.tolist())) for past, each in sizes.items()}
    narrow = Narrowing(steps=plain | {pairs[past]: each for past, each in plain.items()})
    narrowed = opened(tmp_path / "int8/model.onnx")
    for feed, outputs in zip(feeds, wanted, strict=True):
        found = narrowed(narrow.feed(feed))
        assert all(found[present].dtype == np.int8 for present in pairs.values())
        error = np.abs(found["logits"] - outputs["logits"]).max()
        assert error < 0.03 * np.abs(outputs["logits"]).max()
