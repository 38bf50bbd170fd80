"""Encoder-decoder models: an encoder that gives what cross attention keeps, and a decoder step."""

from typing import Any

import torch

from ...deploy.signature import Bounds
from . import components as common
from . import media, modules
from .cache import encoder_decoder_shapes
from .components import SIZES, Axes, Component, Subject

TASKS = ("text2text-generation", "automatic-speech-recognition")


def components(subject: Subject) -> list[Component]:
    """`encoder` and `decoder`: the first runs once, the second once a step."""
    encoder = _encoder(subject)
    return [encoder, _decoder(subject, encoder)]


def _encoder(subject: Subject) -> Component:
    if subject.task == "automatic-speech-recognition":
        inputs, dims, bounds = media.features(subject)
    else:
        names = common.accepted(subject.model, ["input_ids", "attention_mask"])
        inputs = {name: common.ones("batch", "source") for name in names}
        dims: dict[str, Axes] = {name: {0: "batch", 1: "source"} for name in names}
        bounds = {"batch": Bounds(), "source": common.sequence_bounds(subject)}
    return Component(
        name="encoder",
        module=modules.Encoder(subject.model),
        inputs=inputs,
        dims=dims,
        bounds=bounds,
        pads=common.pads(subject),
    )


def _decoder(subject: Subject, encoder: Component) -> Component:
    own, cross, length, width = encoder_decoder_shapes(encoder.module, encoder.inputs)
    dynamic = "source" in encoder.bounds
    kind = subject.model.dtype
    inputs: dict[str, Any] = {"input_ids": common.ones("batch", "sequence")}
    dims: dict[str, Axes] = {"input_ids": {0: "batch", 1: "sequence"}}
    if "attention_mask" in encoder.inputs:
        inputs["encoder_attention_mask"] = torch.ones((SIZES["batch"], length), dtype=torch.int64)
        dims["encoder_attention_mask"] = {0: "batch", 1: "source"}
    past = common.past(own, "past", SIZES["past"], kind)
    seen = common.past(cross, "cross", length, kind)
    longest = common.sequence_bounds(subject)
    bounds = {"batch": Bounds(), "sequence": longest, "past": Bounds(min=0, max=longest.max)}
    return Component(
        name="decoder",
        module=modules.Decoder(subject.model, width),
        inputs=inputs | past | seen,
        dims=dims
        | {name: {0: "batch", 2: "past"} for name in past}
        | {name: {0: "batch", 2: "source"} if dynamic else {0: "batch"} for name in seen},
        bounds=bounds | ({"source": encoder.bounds["source"]} if dynamic else {}),
        pads=common.pads(subject) | {"encoder_attention_mask": 0},
    )
