"""The weight layers of a model one after the other, each with the moments of what it reads now."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ...calibration.moments import Moments
from ...passes.sites import Site
from .rows import rows
from .shelf import Shelf
from .stretch import Order, opened
from .subject import Subject

Visit = Callable[[Site, Moments], None]


def visit(subject: Subject, model: ir.Model, sites: Sequence[Site], see: Visit) -> None:
    """Show each site, in the graph's order, with its inputs' moments over the fitted samples.

    What `see` changes in the model is what later sites are run on. Between two sites only what
    later ones need is kept, on disk, so that no part is run twice and one is in memory at a time.
    """
    order = Order(model)
    values = {value.name: value for node in model.graph for value in node.outputs}
    places = [order.place(values[s.tensor]) if s.tensor in values else -1 for s in sites]
    with tempfile.TemporaryDirectory(prefix="llmdeploy-") as aside:
        now = Shelf(subject.fit, Path(aside))
        for site, place in sorted(zip(sites, places, strict=True), key=lambda each: each[1]):
            alive = order.alive(place) if place >= 0 else []
            see(site, _seen(subject, model, site, alive, now))


def _seen(
    subject: Subject, model: ir.Model, site: Site, alive: Sequence[str], now: Shelf
) -> Moments:
    seen = Moments(site.layers[0].k, 0)
    with opened(model, now[0], [site.tensor, *alive]) as call:
        for index, feed in enumerate(subject.fit):
            found = call(now[index])
            x = rows(found[site.tensor], feed, subject.mask)
            seen.add(x, np.zeros((len(x), 0), np.float32))
            now.put(index, {name: found[name] for name in alive})
    return seen
