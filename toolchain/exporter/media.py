"""Images and sound: example inputs of the shapes that the configuration asks for."""

from collections.abc import Callable
from typing import Any

import torch

from ...deploy.signature import Bounds
from ..checkpoint import read_json
from . import components as common
from . import modules
from .components import SIZES, Axes, Component, Subject

#: Names of sound inputs: raw samples or spectrograms.
SOUNDS = ("input_values", "input_features")
_SAMPLES = 4000  # a quarter of a second at 16 kHz; more than any feature encoder's window
_FRAMES = 160
Inputs = tuple[dict[str, torch.Tensor], dict[str, Axes], dict[str, Bounds]]


def builder(subject: Subject) -> Callable[[Subject], Component] | None:
    """What makes the component of a model that sees or hears; None for texts alone."""
    name = getattr(subject.model, "main_input_name", "input_ids")
    if name == "pixel_values":
        return image
    if name in SOUNDS:
        return sound
    return dual if common.accepted(subject.model, ["pixel_values"]) else None


def image(subject: Subject) -> Component:
    """`pixel_values` [batch, channels, height, width]; the picture's size is the model's."""
    return Component(
        name="",
        module=modules.Plain(subject.model, {}),
        inputs={"pixel_values": pixels(subject, subject.model.config)},
        dims={"pixel_values": {0: "batch"}},
        bounds={"batch": Bounds()},
    )


def dual(subject: Subject) -> Component:
    """Texts and images in one graph, as many of each as one likes."""
    model = subject.model
    names = common.accepted(model, ["input_ids", "attention_mask"])
    size = (SIZES["texts"], SIZES["sequence"])
    bounds = {"batch": Bounds(), "texts": Bounds(), "sequence": common.sequence_bounds(subject)}
    return Component(
        name="",
        module=modules.Plain(model, {}),
        inputs={name: torch.ones(size, dtype=torch.int64) for name in names}
        | {"pixel_values": pixels(subject, model.config)},
        dims={name: {0: "texts", 1: "sequence"} for name in names} | {"pixel_values": {0: "batch"}},
        bounds=bounds,
        pads=common.pads(subject),
    )


def sound(subject: Subject) -> Component:
    """Raw samples or a spectrogram, whichever the model hears."""
    inputs, dims, bounds = features(subject)
    return Component(
        name="",
        module=modules.Plain(subject.model, common.flags(subject.model)),
        inputs=inputs,
        dims=dims,
        bounds=bounds,
        pads={"attention_mask": 0},
    )


def features(subject: Subject) -> Inputs:
    """Sound inputs; static where the model takes one length only (Whisper, AST)."""
    model, config = subject.model, subject.model.config
    name = getattr(model, "main_input_name", "input_features")
    static = _static(config)
    if static is not None:
        return (
            {name: torch.zeros((SIZES["batch"], *static))},
            {name: {0: "batch"}},
            {"batch": Bounds()},
        )
    if name == "input_values":
        value, axis = torch.zeros((SIZES["batch"], _SAMPLES)), "samples"
    else:
        value, axis = torch.zeros((SIZES["batch"], _FRAMES, _width(config))), "frames"
    inputs = {name: value}
    if _masked(subject):
        inputs["attention_mask"] = torch.ones(value.shape[:2], dtype=torch.int64)
    dims = {key: {0: "batch", 1: axis} for key in inputs}
    return inputs, dims, {"batch": Bounds(), axis: Bounds()}


def _static(config: Any) -> tuple[int, int] | None:
    mels = getattr(config, "num_mel_bins", None)
    if mels and getattr(config, "max_source_positions", None):  # Whisper: two frames a position
        return mels, 2 * config.max_source_positions
    if mels and getattr(config, "patch_size", None):  # AST
        return config.max_length, mels
    return None


def _width(config: Any) -> int:
    names = ("feature_projection_input_dim", "input_feat_per_channel", "num_mel_bins")
    return next(int(getattr(config, name)) for name in names if getattr(config, name, None))


def _masked(subject: Subject) -> bool:
    settings = _settings(subject, "feature_extractor")
    asked = settings.get("return_attention_mask", False)
    return bool(asked) and bool(common.accepted(subject.model, ["attention_mask"]))


def _settings(subject: Subject, part: str) -> dict[str, Any]:
    """A preprocessor's settings: the part of a processor's, which transformers 5 writes, first."""
    joined = read_json(subject.folder / "processor_config.json").get(part)
    alone = subject.folder / "preprocessor_config.json"
    return joined if isinstance(joined, dict) else read_json(alone)


def pixels(subject: Subject, config: Any) -> torch.Tensor:
    """An example picture batch of the size the model was made for."""
    vision = getattr(config, "vision_config", config)
    height, width = _size(getattr(vision, "image_size", None) or _prepared(subject) or 224)
    return torch.zeros((SIZES["batch"], getattr(vision, "num_channels", 3), height, width))


def _prepared(subject: Subject) -> Any:
    settings = _settings(subject, "image_processor")
    return settings.get("crop_size") or settings.get("size")


def _size(value: Any) -> tuple[int, int]:
    if isinstance(value, dict):
        edge = value.get("shortest_edge", 224)
        return int(value.get("height", edge)), int(value.get("width", edge))
    if isinstance(value, int):
        return value, value
    height, width = value
    return int(height), int(width)
