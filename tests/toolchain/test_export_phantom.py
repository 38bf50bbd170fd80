from pathlib import Path

import torch
from llmdeploy.toolchain.exporter.phantom import phantom_parameters
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def test_a_big_model_takes_no_memory() -> None:
    """1.1 billion parameters, 4.4 GB in float32."""
    config = LlamaConfig(
        hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_key_value_heads=4
    )
    before = resident()
    with phantom_parameters() as phantoms:
        model = LlamaForCausalLM(config)
    assert sum(one.numel() for one in model.parameters()) > 1.1e9
    assert resident() - before < 100e6
    assert all(one in phantoms for one in model.parameters())


def test_what_is_not_a_parameter_is_computed() -> None:
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, num_hidden_layers=1)
    with phantom_parameters() as phantoms:
        model = LlamaForCausalLM(config)
    frequencies = model.model.rotary_emb.inv_freq
    assert frequencies not in phantoms
    torch.testing.assert_close(frequencies, 10000.0 ** (-torch.arange(0, 16, 2) / 16))


def test_tied_parameters_stay_tied() -> None:
    with phantom_parameters():
        one, other = nn.Linear(300, 300), nn.Linear(300, 300)
        other.weight = one.weight
    assert other.weight is one.weight


def test_a_view_of_a_phantom_is_one() -> None:
    with phantom_parameters() as phantoms:
        linear = nn.Linear(300, 300)
    assert linear.weight[3:7].t() in phantoms
    assert torch.zeros(3) not in phantoms


def test_nothing_stays_patched() -> None:
    original = nn.Module.register_parameter
    with phantom_parameters():
        assert nn.Module.register_parameter is not original
    assert nn.Module.register_parameter is original
    assert nn.Linear(4, 4).weight.abs().sum() > 0
