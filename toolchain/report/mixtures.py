"""What the outputs lose against how much of the model is INT8, as a plot."""

from . import figures
from .charts import Place, legend, places
from .making import Mixture, Quantization
from .markup import Html, html, tag


def curve(found: Quantization) -> Html | None:
    """The agreement with float's outputs at several shares in INT8, float's own 100 % at none."""
    if not found.curve:
        return None
    here = min(found.curve, key=lambda one: abs(one.int8_share - found.int8_share))
    points = [_place(one, chosen=one is here) for one in found.curve]
    points.append(Place(0.0, 100.0, "0 % in INT8\n100 %", "float"))
    title = (
        "Agreement with float's outputs on held-out samples, from nothing in INT8 (left) to all of "
        "it (right); what harms most goes back to float first"
    )
    words = [("int8", "the nearest to what was built"), ("float", "other mixtures")]
    plot = places(points, "%", title)
    return html(tag("figure", tag("figcaption", title), plot, legend(words)))


def _place(one: Mixture, *, chosen: bool) -> Place:
    agreement = 100 * (1 - one.drop)
    text = f"{figures.percent(one.int8_share)} in INT8\n{agreement:.4g} %"
    return Place(100 * one.int8_share, agreement, text, "int8" if chosen else "float")
