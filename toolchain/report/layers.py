"""The error of every weight MatMul: a plot over the graph, and a table, the worst first."""

from collections.abc import Sequence

from . import figures
from .charts import Dot, dots, gauge, histogram, legend
from .making import Layer
from .markup import Column, Html, code, html, pill, table, tag

#: Layers shown before the rest is folded away.
_SHOWN = 8
#: Histograms of activations that are drawn.
_PLOTTED = 6


def plot(layers: Sequence[Layer]) -> Html | None:
    """Signal-to-noise ratio of each layer's output, in the graph's order."""
    known = [_dot(layer, layer.snr_db) for layer in layers if layer.snr_db is not None]
    if not known:
        return None
    title = "Signal-to-noise ratio of each layer's output, in the order of the graph"
    narrow = next((_precision(layer) for layer in layers if layer.int8), "INT8")
    words = {"int8": narrow, "float": "float, with the error INT8 would cause"}
    key = legend([(tone, words[tone]) for tone in words if tone in {dot.tone for dot in known}])
    return tag("figure", tag("figcaption", title), dots(known, "dB", title), key)


def _dot(layer: Layer, snr: float) -> Dot:
    title = f"{layer.node}\n{_precision(layer)}, {figures.decibel(snr)}"
    return Dot(
        snr,
        f"{title}\n{layer.reason}" if layer.reason else title,
        "int8" if layer.int8 else "float",
    )


def _precision(layer: Layer) -> str:
    if not layer.int8:
        return "float"
    return layer.format if layer.bits is None else f"INT{layer.bits} weights"


def activations(layers: Sequence[Layer]) -> Html | None:
    """What the layers with the most error are given: a histogram of |x| each, and its range."""
    ordered = sorted(layers, key=_badness, reverse=True)
    shown = {layer.histogram: layer for layer in reversed(ordered) if any(layer.histogram)}
    worst_first = [layer for layer in ordered if shown.get(layer.histogram) is layer][:_PLOTTED]
    if not worst_first:
        return None
    lead = (
        "How the sizes |x| of their inputs are spread, from 0 to the greatest; counts on a log "
        "scale. Where an input is not smoothed, the line is the end of its INT8 range."
    )
    plots = [_activation(layer) for layer in worst_first]
    title = tag("h3", "What the layers with the most error are given")
    return html((title, tag("p", lead, class_="lead"), tag("div", plots, class_="many")))


def _activation(layer: Layer) -> Html:
    used = max(index for index, count in enumerate(layer.histogram) if count) + 1
    most = used * layer.histogram_width or 1.0
    end = layer.range[1] / most if layer.range and not layer.smoothing else None
    low, high = (figures.number(each, 3) for each in layer.seen or (0.0, most))
    words = f"{low} to {high}, {figures.decibel(layer.snr_db)}"
    picture = histogram(layer.histogram[:used], end if end and end <= 1 else None, layer.node)
    return tag(
        "figure", tag("figcaption", code(layer.node)), picture, tag("p", words, class_="sub")
    )


def worst(layers: Sequence[Layer]) -> Html | None:
    """All layers, the one with the most error first; all but a few folded away."""
    if not layers:
        return None
    ordered = sorted(layers, key=_badness, reverse=True)
    most = max((layer.error_share or 0 for layer in layers), default=0) or 1
    rows = [_row(layer, most) for layer in ordered]
    first = tag("h3", "Most error first"), table(_COLUMNS, rows[:_SHOWN])
    rest = rows[_SHOWN:]
    more = f"{len(rest)} more layers"
    return html(
        (first, tag("details", tag("summary", more), table(_COLUMNS, rest)) if rest else None)
    )


def _badness(layer: Layer) -> tuple[float, float]:
    snr = float("-inf") if layer.snr_db is None else -layer.snr_db
    return (layer.error_share or 0, snr)


_COLUMNS = (
    Column("layer"),
    Column("precision"),
    Column("shape", True),
    Column("SNR", True),
    Column("share of error", True),
    Column("smoothing", True),
    Column("range", True),
)


def _row(layer: Layer, most: float) -> tuple[object, ...]:
    why = tag("div", layer.reason, class_="why") if layer.reason else None
    share = layer.error_share
    bar = None if share is None else gauge(share / most, "int8" if layer.int8 else "float")
    return (
        code(layer.node),
        (pill(_precision(layer), "accent" if layer.int8 else "warn"), why),
        f"{layer.k:,} \N{MULTIPLICATION SIGN} {layer.n:,}",
        figures.decibel(layer.snr_db),
        (figures.percent(share), bar),
        figures.number(layer.smoothing, 2),
        _range(layer),
    )


def _range(layer: Layer) -> Html | str:
    if layer.range is None:
        return figures.NONE
    low, high = (figures.number(end, 3) for end in layer.range)
    observer = tag("div", layer.observer, class_="sub") if layer.observer else None
    return html((f"{low} to {high}", observer))
