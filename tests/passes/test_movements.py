"""Any chain of movements gives the same elements after folding, whatever the sizes."""

import numpy as np
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st
from llmdeploy.passes import PassManager
from llmdeploy.passes.clean import Clean
from llmdeploy.passes.fold import Fold
from onnx.reference import ReferenceEvaluator


class Chain:
    """A model that moves x [b, s, 2, 6] about, in steps that a strategy draws."""

    def __init__(self):
        shape = ir.Shape(["b", "s", 2, 6])
        self.x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
        self.nodes, self.weights, self.rank, self.value = [], [], 4, self.x

    def op(self, op_type, inputs, **attributes):
        node = ir.node(op_type, inputs, attributes)
        self.nodes.append(node)
        return node.outputs[0]

    def ints(self, *numbers):
        tensor = ir.tensor(np.array(numbers, np.int64))
        value = ir.Value(name=f"w{len(self.weights)}", const_value=tensor)
        self.weights.append(value)
        return value

    def transpose(self, data):
        perm = data.draw(st.permutations(range(self.rank)))
        self.value = self.op("Transpose", [self.value], perm=perm)

    def unsqueeze(self, data):
        axis = data.draw(st.integers(-self.rank - 1, self.rank))
        self.value, self.rank = self.op("Unsqueeze", [self.value, self.ints(axis)]), self.rank + 1

    def merge(self, data):
        """Merge two neighbours, by a shape that is computed from the value's own."""
        if self.rank < 2:
            return
        at = data.draw(st.integers(0, self.rank - 2))
        shape = self.op("Shape", [self.value])
        dims = [self.op("Gather", [shape, self.ints(axis)], axis=0) for axis in range(self.rank)]
        both = self.op("Mul", [dims[at], dims[at + 1]])
        asked = self.op("Concat", [*dims[:at], both, *dims[at + 2 :]], axis=0)
        self.value, self.rank = self.op("Reshape", [self.value, asked]), self.rank - 1

    def flatten(self, data):
        self.value, self.rank = self.op("Reshape", [self.value, self.ints(-1, 12)]), 2

    def same(self, data):
        which = data.draw(st.sampled_from(["Identity", "Reshape", "Expand", "Neg"]))
        inputs = [self.value]
        if which in ("Reshape", "Expand"):
            inputs.append(self.op("Shape", [self.value]))
        self.value = self.op(which, inputs)

    def model(self):
        y = self.op("Abs", [self.value])
        y.type, y.name = self.x.type, "y"
        graph = ir.Graph(
            [self.x],
            [y],
            nodes=self.nodes,
            initializers=self.weights,
            opset_imports={"": 20},
            name="chain",
        )
        return ir.Model(graph, ir_version=10)


STEPS = st.lists(
    st.sampled_from(["transpose", "unsqueeze", "merge", "flatten", "same"]), min_size=1, max_size=7
)
SIZES = st.tuples(st.integers(1, 4), st.integers(1, 4))


@settings(max_examples=150, deadline=None)
@given(STEPS, SIZES, st.data())
def test_elements_stay_where_they_were(steps, sizes, data):
    chain = Chain()
    for step in steps:
        getattr(chain, step)(data)
    before = chain.model()
    proto = ir.to_proto(before)
    after, taken = PassManager([Clean(), Fold(), Clean()]).run(before)
    assert all(step.nodes_after <= step.nodes_before for step in taken)
    feed = {"x": np.random.default_rng(0).standard_normal((*sizes, 2, 6)).astype(np.float32)}
    (one,) = ReferenceEvaluator(proto).run(None, feed)
    (two,) = ReferenceEvaluator(ir.to_proto(after)).run(None, feed)
    np.testing.assert_array_equal(two, one)
