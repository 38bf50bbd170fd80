"""From checkpoint to a client's answer, without torch on the way: what a release promises, shown.

A sentence encoder and a causal language model are released and signed; an environment is made
that holds neither torch nor transformers; there each bundle is installed (which verifies it),
served, and asked by the clients that people use: Triton's HTTP client and OpenAI's package.
Then two Ray nodes serve each in two stages, and the tests that tamper, kill and storm are run.

    python benchmarks/acceptance.py [--causal CONFIG.toml] [--work DIR] [--json]
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import acceptance_ray as on_ray
import numpy as np
from acceptance_made import keys, tiny

ROOT = Path(__file__).parents[1]
ENCODER = ROOT / "examples" / "minilm" / "llmdeploy.toml"
EXTRAS = "cpu,serve,sign"
ABSENT = ("torch", "transformers", "onnxscript")
#: The same date in every build, so that two give the same bytes (reproducible-builds.org).
DATE = {"SOURCE_DATE_EPOCH": "1790000000"}
TEXTS = ["A cat sits on the mat.", "The train to Geneva leaves at seven."]


@dataclass(frozen=True)
class Row:
    """One promise that was held, and its figures in words."""

    model: str
    method: str
    seconds: float
    found: str


#: What is told by tests that count what they did.
COUNTED = {
    "tampered, truncated, hostile": ("fuzz", "archive", "bundle", "signing", "oci"),
    "killed at every step": ("install", "install_syscalls"),
    "1,000 requests at once": ("serving",),
}
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
TOKENS = 16


class Show:
    """Runs the promises one by one: the first that is not held ends it."""

    def __init__(self, quiet: bool) -> None:
        self.rows: list[Row] = []
        self._quiet = quiet

    @contextlib.contextmanager
    def held(self, model: str, method: str) -> Generator[list[str]]:
        started, words = time.perf_counter(), list[str]()
        yield words
        seconds = round(time.perf_counter() - started, 1)
        self._add("held", Row(model, method, seconds, ", ".join(words)))

    def skipped(self, model: str, method: str, why: str) -> None:
        """What cannot be shown here is said to be so."""
        self._add("NOT SHOWN", Row(model, method, 0.0, f"not shown: {why}"))

    def _add(self, word: str, row: Row) -> None:
        self.rows.append(row)
        if not self._quiet:
            line = f"{word:<9} {row.model:<10} {row.method:<34} {row.seconds:>7} s  {row.found}"
            print(line, flush=True)


def run(*command: object, **environment: str) -> str:
    env = {**os.environ, **DATE, **environment}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, env=env
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def tool(python: Path, *arguments: object) -> Any:
    return json.loads(run(python, "-m", "llmdeploy", *arguments, "--json"))


def released(show: Show, name: str, config: Path, work: Path) -> Path:
    """Release, pack twice more from the same stages, compare the bytes; the archive."""
    workspace = work / name
    here = Path(sys.executable)
    with show.held(name, "release: every gate") as words:
        report = tool(here, "release", "-c", config, "-w", workspace)
        assert report["verdict"] == "pass", report["verdict"]
        words.append(f"{len(report['gates'])} gates")
    with show.held(name, "two builds, the same bytes") as words:
        archives: list[bytes] = []
        for _ in range(2):
            shutil.rmtree(workspace / "bundle")
            made = tool(here, "bundle", "-c", config, "-w", workspace)["bundles"][0]
            archives.append(Path(made["path"]).read_bytes())
        assert archives[0] == archives[1], "the archives differ"
        words += [f"{len(archives[0]):,} bytes", f"sha256 {made['sha256'][:12]}"]
    return Path(made["path"])


def environment(show: Show, work: Path) -> Path:
    """A device's interpreter, made anew."""
    with show.held("device", "pip install llmdeploy[cpu]") as words:
        run(sys.executable, "-m", "venv", "--clear", work / "env")
        python = work / "env" / "bin" / "python"
        source = work / "source"
        ignore = shutil.ignore_patterns(".*", "build", "dist", "artifacts", "*.egg-info", "tests")
        shutil.copytree(ROOT, source, ignore=ignore, dirs_exist_ok=True)
        constraints = ROOT / "constraints.txt"
        run(python, "-m", "pip", "install", "-q", "-c", constraints, f"{source}[cpu]")
        size = sum(p.stat().st_size for p in (work / "env").rglob("*") if p.is_file())
        words.append(f"{size / 1e6:.0f} MB")
    with show.held("device", f"pip install llmdeploy[{EXTRAS}]") as words:
        run(python, "-m", "pip", "install", "-q", "-c", constraints, f"{source}[{EXTRAS}]")
        code = f"import importlib.util as i; print([i.find_spec(n) for n in {ABSENT}])"
        assert run(python, "-c", code).strip() == str([None] * len(ABSENT))
        words.append(f"no {', no '.join(ABSENT)}")
    return python


def installed(show: Show, name: str, archive: Path, python: Path, work: Path) -> Path:
    private, public = keys(work)
    tool(Path(sys.executable), "sign", archive, "--key", private)
    root = work / "device" / name
    with show.held(name, "install: signature, self-test") as words:
        found = tool(python, "install", archive, "--root", root, "--key", public)
        assert found["signed"]
        assert found["selftest"]["ok"]
        assert not found["selftest"]["torch_imported"]
        words.append(f"{len(found['selftest']['checks'])} checks")
    return root


@contextlib.contextmanager
def served(python: Path, root: Path) -> Generator[str]:
    command = [str(python), "-m", "llmdeploy", "serve", str(root)]
    with on_ray.answering(command) as address:
        yield address


def asked_by_triton(show: Show, name: str, python: Path, root: Path) -> None:
    """The v2 answer is what the engine itself gives for the same arrays."""
    from llmdeploy.deploy.runtime import load
    from tritonclient import http

    with load(root) as session:
        feed = session.encoder.encode(TEXTS, max_length=32)
        wanted = session.run(feed)
    inputs = [http.InferInput(key, list(array.shape), "INT64") for key, array in feed.items()]
    for one, array in zip(inputs, feed.values(), strict=True):
        one.set_data_from_numpy(array)
    with served(python, root) as address, show.held(name, "tritonclient's v2, a device") as words:
        found = http.InferenceServerClient(address).infer(name, inputs)
        for key, array in wanted.items():
            np.testing.assert_allclose(found.as_numpy(key), array, rtol=1e-4, atol=1e-5)
        words += [f"{key} {list(array.shape)}" for key, array in wanted.items()]


def asked_by_openai(show: Show, name: str, python: Path, root: Path) -> None:
    """The chat's answer is what the bundle itself writes, at once and in pieces."""
    import openai
    from llmdeploy.deploy.runtime import load
    from llmdeploy.deploy.sampling import Sampling

    with load(root) as session:
        prompt = session.prompt(MESSAGES)
        wanted = session.generate([prompt], Sampling(TOKENS), chat=True)[0].text
    with served(python, root) as address, show.held(name, "openai's chat, a device") as words:
        client: Any = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none")
        asked = {"model": name, "messages": MESSAGES, "max_completion_tokens": TOKENS}
        answer = client.chat.completions.create(**asked).choices[0].message.content
        chunks = client.chat.completions.create(**asked, stream=True)
        pieces = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert answer == wanted == pieces, (answer, wanted, pieces)
        words.append(repr(answer))


def spread(show: Show, roots: dict[str, Path]) -> None:
    """Two stages on two Ray nodes: the bits of the encoder's one process, the model's text."""
    encoder, causal = roots
    if why := on_ray.missing():
        for name in roots:
            show.skipped(name, "serve --ray, two stages", why)
        return
    from llmdeploy.deploy.runtime import load
    from llmdeploy.deploy.sampling import Sampling

    with load(roots[encoder], threads=1) as session:
        feed = session.encoder.encode(TEXTS, max_length=32)
        whole = {key: array.tobytes() for key, array in session.run(feed).items()}
    with load(roots[causal], threads=1) as session:
        prompt = session.prompt(MESSAGES)
        text = session.generate([prompt], Sampling(TOKENS), chat=True)[0].text
    with on_ray.nodes() as cluster:
        with (
            show.held(encoder, "serve --ray, two stages") as words,
            on_ray.served(cluster, roots[encoder]) as address,
        ):
            assert on_ray.bits(address, encoder, feed) == whole
            words += [f"on {on_ray.apart()} nodes", "every bit"]
        with (
            show.held(causal, "serve --ray, two stages") as words,
            on_ray.served(cluster, roots[causal]) as address,
        ):
            assert on_ray.written(address, causal, MESSAGES, TOKENS) == text
            words += [f"on {on_ray.apart()} nodes", repr(text)]


def counted(show: Show) -> None:
    """The tests that tamper, kill and storm, with the counts that they print."""
    for method, names in COUNTED.items():
        with show.held("tests", method) as words:
            files = [ROOT / "tests" / "deploy" / f"test_{name}.py" for name in names]
            chosen = {"install": ["-k", "kill"], "serving": ["-k", "storm"]}.get(names[0], [])
            every = ["-m", "slow or not slow", "-p", "no:cacheprovider"]
            told = run(sys.executable, "-m", "pytest", "-q", *every, *chosen, *files)
            lines = [line for line in told.splitlines() if re.search("[a-z]", line)]
            words += [line.partition(" in ")[0] if "passed" in line else line for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", type=Path, default=ENCODER, help="its llmdeploy.toml")
    parser.add_argument("--causal", type=Path, help="its llmdeploy.toml; a tiny one by default")
    parser.add_argument("--work", type=Path, help="a folder to keep; what is fresh is not redone")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    show = Show(given.json)
    with tempfile.TemporaryDirectory() as temporary:
        work = (given.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(work / "device", ignore_errors=True)
        python = environment(show, work)
        asks = {given.encoder: asked_by_triton, given.causal or tiny(work): asked_by_openai}
        roots: dict[str, Path] = {}
        for config, ask in asks.items():
            name = _name(config)
            archive = released(show, name, config.absolute(), work)
            roots[name] = installed(show, name, archive, python, work)
            ask(show, name, python, roots[name])
        spread(show, roots)
        counted(show)
    if given.json:
        versions = {"python": sys.version.split()[0]}
        print(json.dumps({"rows": [asdict(row) for row in show.rows], "environment": versions}))


def _name(config: Path) -> str:
    import tomllib

    return str(tomllib.loads(config.read_text())["bundle"]["name"])


if __name__ == "__main__":
    main()
