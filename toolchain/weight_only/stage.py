"""The stage `quantize` where weights alone are in few bits: what the configuration asks, done."""

from pathlib import Path
from typing import Any

from ... import ConfigError
from .. import registry
from ..choosing import kept
from ..feeds import calibration_feeds, logit_names, mask_name
from ..joining import named
from ..keeping import kept_as_int8, wanted
from ..narrowing import fitted
from ..run import Run
from ..sampled import sample_options, samples_digest
from ..stages import each
from ..token_tables import rounds_tables, with_tables
from ..versions import GRAPH, RUNTIME
from ..workspace import Stage
from .making import BITS, quantize
from .recipe import Recipe
from .rounds import Samples

#: What `block = "auto"` is, by precision: a scale an output costs w8 next to nothing.
USUAL = {"int4": 32, "w8": 0}
UNSAMPLED = "no samples are named: weights went to the nearest (rtn), nothing was chosen by error"


def weigh(run: Run, before: Stage) -> Stage:
    """The graph with weights in few bits, from the optimised one; in the place of the Q/DQ graph.

    Method `auto` is `rtn` where no samples are named, and says so.

    Raises:
        ConfigError: no samples where the method asks for them.
    """
    precision, table, keep = run.config.build.precision, run.config.quantize, kept(run)
    recipe = recipe_of(run)
    sampled = recipe.method != "rtn"
    drawn = sampled or wanted(run)

    def work(graph: str, out: Path) -> dict[str, Any]:
        samples = Samples(mask=mask_name(run, graph))
        source: dict[str, Any] = {}
        if sampled:
            feeds = calibration_feeds(run, graph)
            fit, held_out = (
                fitted(run, before.name, graph, each) for each in (feeds.fit, feeds.held_out)
            )
            samples = Samples(fit, held_out, samples.mask)
            source = _told(feeds.source)
        found = quantize(
            run.folder(before.name, graph) / "model.onnx",
            out,
            recipe=recipe,
            samples=samples,
            keep=named(graph, keep),
            head=table.head,
            logits=logit_names(run, graph),
        )
        unasked = table.method == "auto" and not sampled
        return {**found, **source, "notes": [UNSAMPLED] if unasked else []}

    inputs = {before.name: before.digest}
    options = {"precision": precision, "keep": keep, **table.model_dump(), "moved": recipe.moved}
    options["vocabulary"] = rounds_tables(run)
    return run.stage(
        "quantize",
        each(run, kept_as_int8(run, before, with_tables(run, before, work))),
        inputs=inputs | ({"samples": samples_digest(run)} if drawn else {}),
        options=options | (sample_options(run) if drawn else {}),
        packages=(*GRAPH, *RUNTIME),
    )


def recipe_of(run: Run) -> Recipe:
    """What `[quantize]` asks for, at the precision that is built."""
    precision, table = run.config.build.precision, run.config.quantize
    block = {"auto": USUAL[precision], "output": 0}.get(str(table.block), table.block)
    method = table.method
    if not run.config.calibration.samples and method in ("gptq", "awq"):
        raise ConfigError(
            f"method {method} needs calibration samples",
            where="[calibration] samples",
            mend='name some there, or say [quantize] method = "rtn", which needs none',
        )
    if method == "auto" and not run.config.calibration.samples:
        method = "rtn"
    moved = table.zero_points is True
    if table.zero_points == "auto":
        moved = precision == "int4" and all(map(_takes_zero_points, run.config.build.backends))
    return Recipe(BITS[precision], int(block), method, table.act_order, table.damping, moved)


def _takes_zero_points(backend: str) -> bool:
    return bool(getattr(registry.find("backends", backend), "zero_points", False))


def _told(source: dict[str, Any]) -> dict[str, Any]:
    """Of the samples, what the report tells."""
    return {"samples": source["count"], "texts": source["count"], "digest": source["digest"]}
