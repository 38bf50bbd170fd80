"""Units found in exported models of many kinds, each removed and held against zeros in its place."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llmdeploy.passes import check, load, save
from llmdeploy.passes.coupling import Group, groups
from llmdeploy.passes.infer import infer
from llmdeploy.passes.refit import Refit, Refitted
from llmdeploy.passes.remove import Remove
from llmdeploy.passes.sites import by_name, layer_of, weight_of
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.compress.cuts import narrowing_of
from llmdeploy.toolchain.config import Config, Model
from llmdeploy.toolchain.feeds import parity_feeds
from llmdeploy.toolchain.replay import replay
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {**SMALL, "intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 0}
#: Model -> (configuration, groups of neurons, groups of heads, what is said of the rest).
KINDS: dict[str, tuple[str, dict[str, Any], int, int, str]] = {
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4}, 2, 2, ""),
    "gpt_neox": ("GPTNeoXForCausalLM", WIDE, 2, 2, ""),
    "llama": ("LlamaForCausalLM", {**WIDE, "num_key_value_heads": 2}, 2, 2, ""),
    "albert": ("AlbertModel", {**WIDE, "embedding_size": 16}, 0, 0, "shared by"),
    "distilbert": ("DistilBertModel", {"dim": 32, "n_layers": 2, "n_heads": 4}, 2, 2, ""),
    "mixtral": ("MixtralForCausalLM", {**WIDE, "num_key_value_heads": 2}, 0, 2, ""),
    # attention wider than the model, and a head that is the embedding again
    "gemma2": (
        "Gemma2ForCausalLM",
        {**WIDE, "num_key_value_heads": 2, "head_dim": 16},
        2,
        2,
        "sums over the axis",
    ),
}


def exported(name: str, folder: Path, give_tokenizer: Callable[[Path], int]) -> Run:
    import torch
    import transformers

    architecture, options, *_ = KINDS[name]
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    torch.manual_seed(0)
    special = {"bos_token_id": 2, "eos_token_id": 3}
    config = transformers.AutoConfig.for_model(
        name, vocab_size=give_tokenizer(checkpoint), **special, **options
    )
    getattr(transformers, architecture)(config).save_pretrained(checkpoint)
    run = Run(Config(model=Model(checkpoint=str(checkpoint))), Workspace(folder / "artifacts"))
    with run.workspace.locked():
        stages.optimize(run)
    return run


def half(group: Group) -> tuple[int, ...]:
    return tuple(range(0, group.units, 2)) if group.units > 1 else (0,)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(KINDS))
def test_units_removed_are_units_that_were_zero(
    name: str, tmp_path: Path, give_tokenizer: Callable[[Path], int]
) -> None:
    run = exported(name, tmp_path, give_tokenizer)
    _, _, neurons, heads, reason = KINDS[name]
    model, zeroed = (load(run.folder("optimize")) for _ in range(2))
    by_name(model)
    infer(model)
    found, left = groups(model)
    kinds = [group.kind for group in found]
    assert (kinds.count("neurons"), kinds.count("heads")) == (neurons, heads), left
    assert all(each.reason for each in left)
    assert not reason or any(re.search(reason, each.reason) for each in left)
    nodes = by_name(zeroed)
    made: dict[str, Refitted] = {}
    for group in found:
        weight = weight_of(zeroed, layer_of(nodes[group.consumer])).copy()
        weight[~np.isin(group.labels, half(group))] = 0
        made[group.consumer] = Refitted(weight)
    Refit(made)(zeroed)
    plan = {group.consumer: half(group) for group in found}
    narrow = narrowing_of(found, plan)
    Remove(plan)(model)
    infer(model)
    check(model, where=name)
    feeds = tuple(parity_feeds(run)[0])
    results: list[list[dict[str, Any]]] = []
    for index, each in enumerate((model, zeroed)):
        save(each, tmp_path / str(index))
        given = feeds if index else [narrow.feed(feed) for feed in feeds]
        results.append(replay(tmp_path / str(index) / "model.onnx", given))
    for mine, theirs in zip(*results, strict=True):
        for output, array in narrow.outputs(theirs).items():
            np.testing.assert_allclose(mine[output], array, atol=1e-4, rtol=1e-3)
