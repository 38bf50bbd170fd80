from hypothesis import given
from hypothesis import strategies as st
from llmdeploy.passes.facts import content
from llmdeploy.passes.infer import infer
from llmdeploy.passes.shape_rules import merged, reshape_to
from llmdeploy.passes.sizes import Size, product, text

NAMES = ("a", "b", "c")
VALUES = st.fixed_dictionaries({name: st.integers(1, 7) for name in NAMES})
ATOMS = st.one_of(st.integers(1, 6).map(Size.of), st.sampled_from(NAMES).map(Size.of))
SIZES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: pair[0] + pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] * pair[1]),
    ),
    max_leaves=5,
)


@given(SIZES, SIZES, VALUES)
def test_sums_and_products_are_those_of_the_numbers(one, two, at):
    assert (one + two).at(at) == one.at(at) + two.at(at)
    assert (one * two).at(at) == one.at(at) * two.at(at)
    assert (one - two).at(at) == one.at(at) - two.at(at)


@given(SIZES, SIZES)
def test_a_product_divides_by_its_factors(one, two):
    assert (one * two).over(two) == one


@given(SIZES, SIZES, VALUES)
def test_a_quotient_multiplies_back(one, two, at):
    quotient = one.over(two)
    if quotient is not None:
        assert quotient.at(at) * two.at(at) == one.at(at)


@given(SIZES)
def test_text_reads_back(size):
    assert Size.of(text(size)) == size


@given(SIZES, SIZES, VALUES)
def test_equal_only_if_equal_everywhere(one, two, at):
    if one == two:
        assert one.at(at) == two.at(at)


@given(st.lists(SIZES, min_size=1, max_size=4), st.data(), VALUES)
def test_reshape_to_says_the_shape(before, data, at):
    groups, after, rest = [], [], list(before)
    while rest:
        taken = data.draw(st.integers(1, len(rest)))
        groups.append(rest[:taken])
        rest = rest[taken:]
    after = [product(group) for group in groups]
    shape = reshape_to(before, after)
    if shape is None:
        return
    numbers = [size.at(at) for size in before]
    read = [numbers[axis] if dim == 0 else dim for axis, dim in enumerate(shape)]
    known = 1
    for dim in read:
        known *= dim if dim != -1 else 1
    total = product(before).at(at)
    filled = [total // known if dim == -1 else dim for dim in read]
    assert filled == [size.at(at) for size in after]


@given(st.lists(st.integers(2, 4).map(Size.of), min_size=1, max_size=5), st.data())
def test_merged_finds_the_neighbours_that_were_merged(before, data):
    groups, start = [], 0
    while start < len(before):
        end = data.draw(st.integers(start + 1, len(before)))
        groups.append(list(range(start, end)))
        start = end
    after = [product([before[axis] for axis in group]) for group in groups]
    found = merged(before, after)
    assert found is not None
    assert [product([before[axis] for axis in group]) for group in found] == after


def test_products_of_too_many_terms_are_not_multiplied_out(graph):
    sums = "*".join(f"(a{index} + b{index})" for index in range(13))
    assert Size.of(sums).name == sums
    squares = "\n".join(f"s{k + 1} = Mul (s{k}, s{k})" for k in range(8))
    model = graph(f"""<ir_version: 10, opset_import: ["" : 20]>
        g (float[a] x, float[b] z) => (int64[1] s8, int64[1] p) {{
            n = Shape (x)
            m = Shape (z)
            s0 = Add (n, m)
            {squares}
            both = Concat <axis = 0> (s4, s4)
            p = ReduceProd (both)
        }}""")
    infer(model)
    assert [content(value) for value in model.graph.outputs] == [None, None]


def test_expressions_of_exporters():
    assert Size.of("past + sequence") == Size.of("sequence") + Size.of("past")
    assert Size.of("2*batch") == Size.of("batch") + Size.of("batch")
    assert Size.of("batch*heads") == Size.of("heads") * Size.of("batch")
    assert Size.of("floor(x/2)").name == "floor(x/2)"
    assert Size.of("__import__('os').system('true')").value is None
