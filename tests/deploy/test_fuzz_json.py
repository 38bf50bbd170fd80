"""JSON that strangers write, beside a bundle's own: generation settings and images of a registry."""

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmdeploy import BundleError, ConfigError
from llmdeploy.deploy import oci, sampling
from llmdeploy.deploy.rules import Rules, start_ids

from .conftest import make_contents, write_engine
from .test_fuzz import JSON, QUICK, edited, edits, replace


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    contents = make_contents(folder, write_engine(folder / "engine"))
    return folder / oci.pack(contents, folder)["path"]


def changed(
    text: bytes, changes: list[tuple[float, int, bytes]], value: Any, choose: Any
) -> list[bytes]:
    """JSON with its bytes edited, and with `value` somewhere in it."""
    tree = json.loads(text)
    replace(tree, value, choose)
    return [edited(text, changes), json.dumps(tree).encode()]


DRAWN = sampling.Sampling(temperature=1)
SETTINGS: dict[str, Any] = {
    "forced_bos_token_id": 1,
    "forced_eos_token_id": [2],
    "suppress_tokens": [3],
    "begin_suppress_tokens": [4],
    "bad_words_ids": [[5], [6, 7]],
    "min_length": 2,
    "min_new_tokens": 1,
    "no_repeat_ngram_size": 2,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "no_timestamps_token_id": 9,
    "is_multilingual": True,
    "lang_to_id": {"<|en|>": 4},
    "task_to_id": {"transcribe": 5},
    "language": "en",
    "task": "transcribe",
}


@QUICK
@given(changes=edits(), value=JSON, choose=st.randoms(use_true_random=False), last=st.booleans())
def test_changed_generation_settings(
    changes: list[tuple[float, int, bytes]], value: Any, choose: Any, last: bool
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for candidate in changed(json.dumps(SETTINGS).encode(), changes, value, choose):
            (folder / "generation_config.json").write_bytes(candidate)
            with contextlib.suppress(ConfigError):
                start_ids(folder)
            with contextlib.suppress(ConfigError):
                rules = Rules.load(folder)
                logits = rules.apply(np.zeros(10, np.float32), [1], [6], last=last)
                random = np.random.default_rng(0)
                assert 0 <= sampling.choose(logits, [1, 6], DRAWN, random) < 10


@QUICK
@given(changes=edits(), value=JSON, choose=st.randoms(use_true_random=False))
def test_a_changed_image(
    layout: Path, changes: list[tuple[float, int, bytes]], value: Any, choose: Any
) -> None:
    descriptor, image = oci.image_of(layout)
    for text in changed(image, changes, value, choose):
        with contextlib.suppress(BundleError):
            for layer in oci.layers_of(text, layout).values():
                oci.blob(layout, layer)
    index = (layout / oci.INDEX).read_bytes()
    with tempfile.TemporaryDirectory() as temporary:
        other = Path(temporary)
        (other / "blobs").symlink_to(layout / "blobs")
        for text in changed(index, changes, value, choose):
            (other / oci.INDEX).write_bytes(text)
            with contextlib.suppress(BundleError):
                assert oci.image_of(other)[0]["digest"] == descriptor["digest"]
