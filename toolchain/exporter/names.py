"""Nodes named after the module they came from: `encoder.layer.0.attention.self.query/MatMul`."""

import re

import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"
_QUOTED = re.compile(r"'([^']*)'")
#: The attribute of what is traced that holds the model itself.
_WRAPPER = "model"


def name_nodes(graph: ir.Graph) -> None:
    """Give each node that tells its module a name of its own: `module/operator`, numbered if taken.

    The scopes are those torch leaves: every module from the outermost in, then the operation.
    """
    nodes = list(graph.all_nodes())
    taken = {node.name for node in nodes if not _module(node)}
    for node in nodes:
        module = _module(node)
        if not module:
            continue
        stem = name = f"{module}/{node.op_type}"
        count = 1
        while name in taken:
            name, count = f"{stem}_{count}", count + 1
        node.name = name
        taken.add(name)


def _module(node: ir.Node) -> str:
    """The innermost module of the model, empty where the node does not tell it."""
    scopes = _QUOTED.findall(node.metadata_props.get(_SCOPES, ""))
    inner = scopes[-2] if len(scopes) > 1 else ""
    return inner.removeprefix(f"{_WRAPPER}.") if inner != _WRAPPER else ""
