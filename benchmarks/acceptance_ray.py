"""A released model in two pipeline stages on two Ray nodes: what `acceptance.py` asks of them."""

import contextlib
import importlib.util
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Of each node: every stage's weights pass through its store.
STORE = 3 << 30


def missing() -> str:
    """Why nothing can be shown here; empty where Ray is installed."""
    if importlib.util.find_spec("ray"):
        return ""
    return "Ray is not installed: pip install -c constraints.txt -e '.[ray]'"


@contextlib.contextmanager
def nodes() -> Generator[str]:
    """Two nodes by Ray's own cluster utility, which run on this machine; their address."""
    import ray  # pyright: ignore[reportMissingImports]
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    each = {"num_cpus": 2, "object_store_memory": STORE}
    made = Cluster(initialize_head=True, head_node_args={**each, "include_dashboard": False})
    made.add_node(**each)
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False, namespace="llmdeploy")
    try:
        yield made.address
    finally:
        ray.shutdown()
        made.shutdown()


@contextlib.contextmanager
def served(cluster: str, root: Path) -> Generator[str]:
    """`llmdeploy serve ROOT --ray --stages 2`; the address that it answers at."""
    options = ["--ray", "--ray-address", cluster, "--stages", "2", "--threads", "1"]
    command = [sys.executable, "-m", "llmdeploy", "serve", str(root), *options]
    with answering(command) as address:
        yield address


@contextlib.contextmanager
def answering(command: list[str]) -> Generator[str]:
    """A server by its command, once it is ready; the address that it answers at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    process = subprocess.Popen([*command, "--port", port])
    try:
        for _ in range(3000):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready").close()
                break
            assert process.poll() is None, "the server has ended"
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0, "the server did not end as it should"
    finally:
        process.kill()


def apart() -> int:
    """On how many nodes the two stages are."""
    from ray._private.state import actors  # pyright: ignore[reportMissingImports]

    found: list[Any] = [each for each in actors().values() if each["State"] == "ALIVE"]
    stages = [each for each in found if "Stage" in each["ActorClassName"]]
    assert len(stages) == 2, stages
    return len({each["Address"]["NodeID"] for each in stages})


def bits(address: str, name: str, feed: Mapping[str, NDArray[Any]]) -> dict[str, bytes]:
    """The bytes of each float output, as the answer's JSON numbers round-trip them."""
    made = [
        {"name": key, "datatype": "INT64", "shape": list(array.shape), "data": array.tolist()}
        for key, array in feed.items()
    ]
    body = json.dumps({"inputs": made}).encode()
    with urllib.request.urlopen(f"http://{address}/v2/models/{name}/infer", body) as answer:
        outputs = json.load(answer)["outputs"]
    return {each["name"]: np.float32(each["data"]).tobytes() for each in outputs}


def written(address: str, name: str, messages: Any, tokens: int) -> str:
    """What the chat route writes after `messages`."""
    asked = {"model": name, "messages": messages, "max_completion_tokens": tokens}
    url = f"http://{address}/v1/chat/completions"
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(asked).encode(), head)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]
