"""Greedy decoding of exported graphs against transformers' own generate, token by token.

    python benchmarks/greedy.py [--json] [--tokens 64] CHECKPOINT...

A causal language model starts from a few prompts, prefilled whole, in chunks and left-padded in a
batch; a speech model from every .wav file of --speech (default: the speech folder of
LLMDEPLOY_DATA), an encoder-decoder from the prompts as texts. ONNX Runtime, float32, CPU.
"""

import argparse
import json
import os
import tempfile
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
import transformers
from llmdeploy.deploy.signature import Signature
from llmdeploy.toolchain.exporter import export
from numpy.typing import NDArray

PROMPTS = ("Once upon a time, there was a little", "The capital of France is", "One day")
CHUNK = 3
Array = NDArray[Any]


class Step:
    """A graph of an export, run with a growing cache."""

    def __init__(self, folder: Path) -> None:
        self.signature = Signature.load(folder)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            folder / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """The graph's outputs by name."""
        return dict(zip(self._names, self._session.run(None, dict(feed)), strict=True))

    def empty(self, batch: int) -> dict[str, Array]:
        """An empty past."""
        sizes = {"batch": batch, "past": 0}
        return {
            one.name: np.zeros([sizes.get(str(d), d) for d in one.shape], one.dtype)
            for one in self.signature.inputs
            if one.role.startswith("past_")
        }


def grown(made: Mapping[str, Array]) -> dict[str, Array]:
    """This step's cache as the next step's past."""
    return {
        name.replace("present_", "past_"): one
        for name, one in made.items()
        if name.startswith("present_")
    }


def causal(step: Step, ids: Array, mask: Array, tokens: int, chunk: int) -> Array:
    """Greedy continuation [batch, tokens] of left-padded prompts."""
    past, new = step.empty(len(ids)), []
    whole = mask
    pieces = [slice(at, at + chunk) for at in range(0, ids.shape[1], chunk)]
    for piece in pieces:
        made = step(_feed(step, ids[:, piece], whole[:, : piece.start + chunk], past))
        past = grown(made)
    for _ in range(tokens):
        last = made["logits"][:, -1].argmax(-1)[:, None]
        new.append(last)
        whole = np.concatenate([whole, np.ones_like(last)], 1)
        made = step(_feed(step, last, whole, past))
        past = grown(made)
    return np.concatenate(new, 1)


def _feed(step: Step, ids: Array, mask: Array, past: Mapping[str, Array]) -> dict[str, Array]:
    places = np.maximum(mask.cumsum(1) - 1, 0)[:, -ids.shape[1] :]
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
    wanted = {one.name for one in step.signature.inputs}
    return {name: one for name, one in given.items() if name in wanted} | dict(past)


def pair(folder: Path, inputs: Mapping[str, Array], start: Array, tokens: int) -> Array:
    """Greedy decoding [1, tokens] of one encoded input."""
    encoder, decoder = Step(folder / "encoder"), Step(folder / "decoder")
    encoded = encoder(inputs)
    seen = {name: one for name, one in encoded.items() if name.startswith("cross_")}
    if "attention_mask" in inputs:
        seen["encoder_attention_mask"] = inputs["attention_mask"]
    past, new, ids = decoder.empty(1), [], start
    for _ in range(tokens):
        made = decoder({"input_ids": ids, **seen, **past})
        past, ids = grown(made), made["logits"][:, -1].argmax(-1)[:, None]
        new.append(ids)
    return np.concatenate(new, 1)


def compare_causal(source: Path, folder: Path, tokens: int) -> dict[str, Any]:
    """Every prompt alone, chunked, and all in one padded batch."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, padding_side="left")
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    step, same, total = Step(folder), 0, 0
    batches = [([prompt], chunk) for prompt in PROMPTS for chunk in (512, CHUNK)]
    for texts, chunk in [*batches, (list(PROMPTS), 512)]:
        inputs = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
        wanted = _generate(model, inputs, tokens)
        arrays = {name: one.numpy() for name, one in inputs.items()}
        made = causal(step, arrays["input_ids"], arrays["attention_mask"], tokens, chunk)
        same += int((made == wanted).sum())
        total += wanted.size
    return {"tokens": total, "equal": same}


def _generate(model: Any, inputs: Mapping[str, Any], tokens: int, **options: Any) -> Array:
    """transformers' greedy tokens, exactly this many: nothing ends a text early."""
    settings = transformers.GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=tokens,
        pad_token_id=0,
        decoder_start_token_id=model.config.decoder_start_token_id
        if model.config.is_encoder_decoder
        else None,
    )
    model.generation_config = settings
    with torch.no_grad():
        made = transformers.GenerationMixin.generate(
            model, **inputs, generation_config=settings, **options
        )
    return made[:, -tokens:].numpy()


def compare_speech(
    source: Path, folder: Path, tokens: int, clips: Sequence[Path]
) -> dict[str, Any]:
    """Every clip, from the start-of-transcript tokens that the checkpoint's settings name."""
    listen = transformers.AutoFeatureExtractor.from_pretrained(source)
    model = transformers.AutoModelForSpeechSeq2Seq.from_pretrained(source).eval()
    start = np.array([[model.config.decoder_start_token_id]])
    same = total = 0
    for clip in clips:
        features = listen(_samples(clip), sampling_rate=16000, return_tensors="pt")
        wanted = _generate(
            model,
            {"input_features": features["input_features"]},
            tokens,
            decoder_input_ids=torch.from_numpy(start),
        )
        made = pair(folder, {"input_features": features["input_features"].numpy()}, start, tokens)
        same += int((made == wanted).sum())
        total += wanted.size
    return {"tokens": total, "equal": same}


def compare_texts(source: Path, folder: Path, tokens: int) -> dict[str, Any]:
    """An encoder-decoder on the prompts."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(source, dtype=torch.float32).eval()
    start = np.array([[model.config.decoder_start_token_id]])
    same = total = 0
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        wanted = _generate(model, inputs, tokens)
        made = pair(folder, {name: one.numpy() for name, one in inputs.items()}, start, tokens)
        same += int((made == wanted).sum())
        total += wanted.size
    return {"tokens": total, "equal": same}


def _samples(path: Path) -> Array:
    with wave.open(str(path)) as file:
        data = file.readframes(file.getnframes())
        if file.getframerate() != 16000 or file.getsampwidth() != 2:
            raise SystemExit(f"{path}: 16 kHz, 16 bits expected")
    return np.frombuffer(data, np.int16).astype(np.float32) / 32768


def row(checkpoint: str, tokens: int, clips: Sequence[Path]) -> dict[str, Any]:
    """Export one checkpoint and compare."""
    source = Path(checkpoint)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = export(checkpoint, folder)
        made = {"model": source.name, "method": "llmdeploy", "task": results["task"]}
        if results["task"] == "text-generation":
            return made | compare_causal(source, folder, tokens)
        if results["task"] == "automatic-speech-recognition":
            return made | compare_speech(source, folder, tokens, clips)
        return made | compare_texts(source, folder, tokens)


def main() -> None:
    """Print the table, or one JSON object; exit 1 where a token differs."""
    data = Path(os.environ.get("LLMDEPLOY_DATA", Path(__file__).parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--speech", type=Path, default=data / "speech")
    asked = parser.parse_args()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    clips = sorted(asked.speech.glob("*.wav"))
    rows = [row(checkpoint, asked.tokens, clips) for checkpoint in asked.checkpoints]
    packages = (torch, transformers, ort)
    environment = {one.__name__: one.__version__ for one in packages} | {"tokens": asked.tokens}
    if asked.json:
        print(json.dumps({"rows": rows, "environment": environment}))
    else:
        print("| model | task | tokens | equal |\n|---|---|---|---|")
        for one in rows:
            print(f"| {one['model']} | {one['task']} | {one['tokens']} | {one['equal']} |")
    raise SystemExit(any(one["equal"] != one["tokens"] for one in rows))


if __name__ == "__main__":
    main()
