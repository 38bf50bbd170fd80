"""How figures are written for people: bytes, seconds, counts, errors, ratios."""

import math

#: What stands where there is no figure.
NONE = "\N{EM DASH}"
_UNITS = ("B", "kB", "MB", "GB", "TB")


def size(count: float | None) -> str:
    """Bytes with a decimal unit: `90.9 MB`."""
    if count is None:
        return NONE
    scale = 0 if count < 1000 else min(int(math.log10(count) // 3), len(_UNITS) - 1)
    return f"{count / 1000**scale:.{0 if scale == 0 else 1}f} {_UNITS[scale]}"


def seconds(value: float | None) -> str:
    """A duration: `0.04 s`, `12.3 s`, `2 min 05 s`."""
    if value is None:
        return NONE
    if value >= 120:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest:02d} s"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def count(value: int | None) -> str:
    """An integer, thousands apart; millions and more shortened: `22.7 M`."""
    if value is None:
        return NONE
    for unit, scale in (("G", 10**9), ("M", 10**6)):
        if value >= scale:
            return f"{value / scale:.1f} {unit}"
    return f"{value:,}"


def number(value: float | None, digits: int = 4) -> str:
    """A figure with this many significant digits: `0.9987`, `12300`, `1.2e-6`."""
    if value is None:
        return NONE
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"
    mantissa, _, exponent = f"{value:.{min(digits, 3) - 1}e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def score(value: float | None) -> str:
    """A metric with four digits, trailing zeros kept: `0.6560`, `27.60`."""
    return NONE if value is None else f"{value:#.4g}".removesuffix(".")


def near_one(value: float | None) -> str:
    """A cosine or share of float, whose interest lies in the last digits: `0.99992`."""
    return NONE if value is None else f"{value:.5f}"


def ratio(value: float | None) -> str:
    """How many times: `2.51x`."""
    return NONE if value is None else f"{value:.2f}\N{MULTIPLICATION SIGN}"


def percent(value: float | None) -> str:
    """A share: `97.4 %`."""
    return NONE if value is None else f"{100 * value:.1f} %"


def decibel(value: float | None) -> str:
    """A signal-to-noise ratio: `38.2 dB`."""
    return NONE if value is None else f"{value:.1f} dB"


def milliseconds(value: float | None) -> str:
    """A latency: `3.12 ms`."""
    return NONE if value is None else f"{number(value, 3)} ms"


def label(key: str) -> str:
    """A key in words; what counts bytes says so by its unit."""
    return key.removesuffix("_bytes").replace("_", " ")


def plain(key: str, value: object) -> str:
    """Any JSON value in words: yes and no, bytes and their unit, lists and pairs with commas."""
    match value:
        case None | bool():
            return {None: NONE, True: "yes", False: "no"}[value]
        case int() if key.endswith("bytes"):
            return size(value)
        case float():
            return number(value)
        case dict():
            pairs = (f"{one} {plain(str(one), inner)}".strip() for one, inner in value.items())
            return ", ".join(pairs) or NONE
        case list() | tuple():
            return ", ".join(plain(key, inner) for inner in value) or NONE
        case _:
            return str(value)
