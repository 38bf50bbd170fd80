"""Layers that share a weight: changed one by one each would need a copy of its own."""

from collections.abc import Sequence

import onnx_ir as ir

from ...passes.sites import Layer, Site


def sharing(model: ir.Model, sites: Sequence[Site]) -> dict[str, str]:
    """Of each such layer that may be changed why it stays as it is, by its name."""
    layers: list[Layer] = [layer for site in sites for layer in site.inner]
    readers = {each.weight: len(model.graph.initializers[each.weight].uses()) for each in layers}
    return {
        each.node: f"its weight is shared by {readers[each.weight]} nodes"
        for each in layers
        if readers[each.weight] > 1
    }
