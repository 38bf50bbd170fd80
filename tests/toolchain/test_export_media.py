"""What a preprocessor's settings say of sounds and pictures, wherever transformers wrote them."""

import json
from pathlib import Path
from typing import Any

import pytest
from llmdeploy.toolchain.exporter.components import Subject
from llmdeploy.toolchain.exporter.media import image, sound

JOINED, ALONE = "processor_config.json", "preprocessor_config.json"


def write(folder: Path, name: str, part: str, settings: dict[str, Any]) -> None:
    """Alone in a file, or as transformers 5 writes it, as a part of the processor's."""
    text = {part: settings} if name == JOINED else settings
    (folder / name).write_text(json.dumps(text))


def hears(folder: Path) -> Subject:
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    sizes = {"conv_dim": (8,), "conv_stride": (4,), "conv_kernel": (8,)}
    model = Wav2Vec2ForCTC(
        Wav2Vec2Config(
            **sizes,  # pyright: ignore[reportArgumentType]
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            vocab_size=8,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
        )
    )
    return Subject(folder, model, "ctc")


@pytest.mark.parametrize("name", [JOINED, ALONE])
@pytest.mark.parametrize("masked", [True, False])
def test_sounds_have_a_mask_where_their_processor_makes_one(
    tmp_path: Path, name: str, masked: bool
) -> None:
    write(tmp_path, name, "feature_extractor", {"return_attention_mask": masked})
    inputs = sound(hears(tmp_path)).inputs
    assert set(inputs) == {"input_values", *(["attention_mask"] if masked else [])}


def test_the_processors_own_settings_count(tmp_path: Path) -> None:
    write(tmp_path, JOINED, "feature_extractor", {"return_attention_mask": True})
    write(tmp_path, ALONE, "feature_extractor", {"return_attention_mask": False})
    assert "attention_mask" in sound(hears(tmp_path)).inputs


@pytest.mark.parametrize("name", [JOINED, ALONE])
def test_a_picture_has_the_size_that_its_processor_makes(tmp_path: Path, name: str) -> None:
    from transformers import ResNetConfig, ResNetModel

    write(tmp_path, name, "image_processor", {"crop_size": {"height": 48, "width": 32}})
    model = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1]))
    pixels = image(Subject(tmp_path, model, "feature-extraction")).inputs["pixel_values"]
    assert pixels.shape[1:] == (3, 48, 32)
