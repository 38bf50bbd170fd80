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
        """The exact quotient by a single term, None where there is none."""
        if len(other.terms) != 1:
            return Size.of(1) if self == other and self.terms else None
        divisor, count = other.terms[0]
        quotient: list[tuple[Monomial, int]] = []
        for names, coefficient in self.terms:
            left = Counter(names)
            left.subtract(divisor)
            if coefficient % count or min(left.values(), default=0) < 0:
                return None
            quotient.append((tuple(sorted(left.elements())), coefficient // count))
        return _collected(quotient)


def product(sizes: "list[Size] | tuple[Size, ...]") -> Size:
    """The product of sizes, 1 of none."""
    result = Size.of(1)
    for size in sizes:
        result = result * size
    return result


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


_OPERATORS: dict[type[ast.operator], Callable[[Size, Size], Size]] = {
    ast.Add: Size.__add__,
    ast.Sub: Size.__sub__,
    ast.Mult: Size.__mul__,
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
    """A value's shape; a dimension that has no name is known by the value's own name and axis."""
    if value.shape is None:
        return None
    return tuple(
        Size.of(dim if isinstance(dim, int) else dim.value or f"{value.name}[{axis}]")
        for axis, dim in enumerate(value.shape)
    )
