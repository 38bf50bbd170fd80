"""Sizes of dimensions: polynomials with integer coefficients in the names of dimensions."""

import ast
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import onnx_ir as ir

#: A product of names, sorted; the empty product is 1.
Monomial = tuple[str, ...]
#: So many names a product of sums or a power may take: they grow with each that is multiplied.
_TERMS = 4096


@dataclass(frozen=True)
class Size:
    """An exact dimension: a sum of coefficient times product of names, in canonical order.

    Two sizes are equal only if they are equal for every value of the names.
    """

    terms: tuple[tuple[Monomial, int], ...]

    @classmethod
    def of(cls, dim: "int | str | Size") -> "Size":
        """A number, or a name or expression as `dim_param` holds it ("batch", "past + 1")."""
        if isinstance(dim, Size):
            return dim
        if isinstance(dim, int):
            return cls((((), dim),) if dim else ())
        return _parsed(dim)

    @property
    def value(self) -> int | None:
        """The number, if it does not depend on a name."""
        if not self.terms:
            return 0
        return self.terms[0][1] if len(self.terms) == 1 and not self.terms[0][0] else None

    def at(self, sizes: Mapping[str, int]) -> int:
        """The number it is where the names have these sizes."""
        return sum(count * math.prod(sizes[name] for name in names) for names, count in self.terms)

    @property
    def name(self) -> str | None:
        """The name, if it is one name and nothing else."""
        if len(self.terms) != 1 or self.terms[0][1] != 1 or len(self.terms[0][0]) != 1:
            return None
        return self.terms[0][0][0]

    def names(self) -> set[str]:
        """The names it depends on."""
        return {name for names, _ in self.terms for name in names}

    def where(self, equations: "Mapping[str, Size]") -> "Size":
        """The same size with names put in other terms."""
        if not equations or self.names().isdisjoint(equations):
            return self
        total = Size(())
        for names, count in self.terms:
            known = [equations.get(name, Size(((((name,)), 1),))) for name in names]
            total = total + product([Size.of(count), *known])
        return total

    def __add__(self, other: "Size") -> "Size":
        return _collected([*self.terms, *other.terms])

    def __sub__(self, other: "Size") -> "Size":
        return _collected([*self.terms, *((names, -count) for names, count in other.terms)])

    def __mul__(self, other: "Size") -> "Size":
        return _collected(
            [
                (tuple(sorted((*one, *two))), first * second)
                for one, first in self.terms
                for two, second in other.terms
            ]
        )

    def over(self, other: "Size") -> "Size | None":
        """The exact quotient, None where there is none: division by leading terms."""
        if not other.terms:
            return None
        divisor, count = max(other.terms, key=_degree)
        rest, quotient = self, Size(())
        while rest.terms:
            names, coefficient = max(rest.terms, key=_degree)
            left = Counter(names)
            left.subtract(divisor)
            if coefficient % count or min(left.values(), default=0) < 0:
                return None
            part = Size(((tuple(sorted(left.elements())), coefficient // count),))
            quotient, rest = quotient + part, rest - part * other
        return quotient


def _degree(term: tuple[Monomial, int]) -> tuple[int, Monomial]:
    """Graded lexicographic order of monomials, in which products keep their order."""
    return len(term[0]), term[0]


def product(sizes: "list[Size] | tuple[Size, ...]") -> Size:
    """The product of sizes, 1 of none."""
    result = Size.of(1)
    for size in sizes:
        result = result * size
    return result


def times(one: Size, two: Size) -> Size | None:
    """The product of two sizes; None where so many terms come of it that it is no dimension."""
    longest = sum(max(len(names) for names, _ in size.terms or (((), 0),)) for size in (one, two))
    return one * two if len(one.terms) * len(two.terms) * (longest + 1) <= _TERMS else None


def _collected(terms: list[tuple[Monomial, int]]) -> Size:
    total: Counter[Monomial] = Counter()
    for names, count in terms:
        total[names] += count
    return Size(tuple(sorted((names, count) for names, count in total.items() if count)))


@cache
def _parsed(text: str) -> Size:
    """A sum or product of names and numbers; any other expression is one name of its own."""
    try:
        found = _walk(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        found = None
    return found if found is not None else Size((((text,), 1),))


def _walk(tree: ast.expr) -> Size | None:
    match tree:
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            return Size.of(number)
        case ast.Name(id=name):
            return Size((((name,), 1),))
        case ast.BinOp(left=left, op=op, right=right):
            one, two = _walk(left), _walk(right)
            combine = _OPERATORS.get(type(op))
            return combine(one, two) if one is not None and two is not None and combine else None
        case _:
            return None


_OPERATORS: dict[type[ast.operator], Callable[[Size, Size], Size | None]] = {
    ast.Add: Size.__add__,
    ast.Sub: Size.__sub__,
    ast.Mult: times,
}


def text(size: Size) -> int | str:
    """A size as a shape holds it: a number, or an expression in the names of dimensions."""
    if size.value is not None:
        return size.value
    terms = [
        "*".join([*([str(count)] if count != 1 else []), *names]) or str(count)
        for names, count in size.terms
    ]
    return " + ".join(terms)


def is_vague(dim: int | ir.SymbolicDim) -> bool:
    """Whether nothing is known of a dimension but that it is one; inference names those unk__."""
    return not isinstance(dim, int) and (dim.value is None or dim.value.startswith("unk__"))


def sizes(value: ir.Value) -> tuple[Size, ...] | None:
    """A value's shape; a dimension that has no name is known by the value's own name and axis.

    Names that `equate` found to be others' sums and products are put in those terms.
    """
    if value.shape is None:
        return None
    known = _equations(value)
    made: tuple[Size, ...] | None = value.meta.get(_MADE)
    if made is not None and len(made) == len(value.shape):
        return tuple(size.where(known) for size in made)
    return tuple(
        Size.of(dim if isinstance(dim, int) else dim.value or f"{value.name}[{axis}]").where(known)
        for axis, dim in enumerate(value.shape)
    )


_KEY = "llmdeploy.equations"
_MADE = "llmdeploy.sizes"


def correct(value: ir.Value, made: tuple[Size, ...]) -> None:
    """Take down the shape a value is made with, where what is written of it is something else."""
    if not any(_is_opaque(name) for size in made for name in size.names()):
        value.meta[_MADE] = made


def _equations(value: ir.Value) -> dict[str, Size]:
    producer = value.producer()
    graph = value.graph if producer is None else producer.graph
    return graph.meta.get(_KEY, {}) if isinstance(graph, ir.Graph) else {}


def equate(graph: ir.Graph, name: str, size: Size) -> None:
    """Take down that in this graph a dimension's name stands for a size in other names."""
    known: dict[str, Size] = graph.meta.setdefault(_KEY, {})
    size = size.where(known)
    if name in known or name in size.names() or any(_is_opaque(part) for part in size.names()):
        return
    for other, old in known.items():
        known[other] = old.where({name: size})
    known[name] = size


def _is_opaque(name: str) -> bool:
    return name.startswith("unk__") or "[" in name
