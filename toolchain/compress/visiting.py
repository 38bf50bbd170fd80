"""The weight layers of a model one after the other, each with the moments of what it reads now."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from ...calibration.moments import Moments
from ...passes.sites import Site
from .rows import rows
from .stretch import Arrays, Order, opened
from .subject import Subject

Visit = Callable[[Site, Moments], None]


def visit(subject: Subject, model: ir.Model, sites: Sequence[Site], see: Visit) -> None:
    """Show each site, in the graph's order, with its inputs' moments over the fitted samples.

    What `see` changes in the model is what later sites are run on; between two sites only what
    later ones need is kept, so that no part is run twice.
    """
    order = Order(model)
    values = {value.name: value for node in model.graph for value in node.outputs}
    now: list[Arrays] = [dict(feed) for feed in subject.fit]
    places = [order.place(values[s.tensor]) if s.tensor in values else -1 for s in sites]
    for site, place in sorted(zip(sites, places, strict=True), key=lambda each: each[1]):
        alive = order.alive(place) if place >= 0 else []
        seen = Moments(site.layers[0].k, 0)
        with opened(model, now[0], [site.tensor, *alive]) as call:
            for index, feed in enumerate(subject.fit):
                found = call(now[index])
                x = rows(found[site.tensor], feed, subject.mask)
                seen.add(x, np.zeros((len(x), 0), np.float32))
                now[index] = {**feed, **{name: found[name] for name in alive}}
        see(site, seen)
