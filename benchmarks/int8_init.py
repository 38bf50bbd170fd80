"""`llmdeploy init MODEL && llmdeploy build --int8` in an empty folder: does it pass its gate?

    python benchmarks/int8_init.py [minilm] [sst2] [stories260k] [smollm2] [--keep DIR] [--json]

Nothing is set by hand: the configuration is what `init` writes, the samples are named on the
command line. The gate is the one that `init` proposes. minilm and smollm2 come from packages,
sst2 and stories260k lie beside the project (see int8_data.py).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from int8_data import MissingError, Subject, write_texts
from int8_subjects import SUBJECTS

NAMES = ("minilm", "sst2", "stories260k", "smollm2")
COUNT = {"minilm": 256, "sst2": 256, "stories260k": 64, "smollm2": 32}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=", ".join(NAMES))
    parser.add_argument("--keep", type=Path, help="work there, and leave it")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def verb(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """A verb of the command line in a folder: its exit code, and what it says as JSON."""
    command = [sys.executable, "-m", "llmdeploy", *words, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    (folder / f"{words[0]}.log").write_text(done.stdout + done.stderr)
    lines = done.stdout.strip().splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else {}


def row(subject: Subject, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    texts, started = folder / "samples.jsonl", time.perf_counter()
    write_texts(subject.texts()[: COUNT[subject.name]], texts)
    figures: dict[str, Any] = {"model": subject.name, "method": "init, build --int8"}
    code, said = verb(folder, "init", subject.checkpoint(folder))
    if code == 0:
        code, said = verb(folder, "build", "--int8", "--samples", texts.name)
    figures |= {"exit_code": code, "seconds": round(time.perf_counter() - started, 1)}
    if "gates" not in said:
        return {**figures, "reason": said.get("error", {}).get("message", "no report")}
    gates = {each["name"]: [each["status"], each["value"]] for each in said["gates"]}
    return {**figures, "verdict": said["verdict"], "gates": gates}


def main() -> None:
    asked, found = arguments(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as temporary:
        for subject in SUBJECTS:
            if subject.name not in (asked.subjects or NAMES):
                continue
            try:
                found.append(row(subject, (asked.keep or Path(temporary)) / subject.name))
            except MissingError as error:
                found.append({"model": subject.name, "method": "all", "reason": str(error)})
            shown = "  ".join(f"{name} {value}" for name, value in found[-1].items())
            print(shown, file=sys.stderr if asked.json else sys.stdout, flush=True)
    if asked.json:
        facts = {"cores": os.cpu_count(), "load_average": os.getloadavg()[0]}
        print(json.dumps({"rows": found, "environment": facts}))
    sys.exit(1 if any(each.get("exit_code", 0) for each in found) else 0)


if __name__ == "__main__":
    main()
