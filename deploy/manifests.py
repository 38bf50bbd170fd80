"""How a Triton repository is started: an image, Docker Compose, Kubernetes, and KServe.

What is given is quoted: YAML would read a model called `true` or `2024` as something else.
"""

import re
from collections.abc import Mapping
from pathlib import Path

FOLDER = "manifests"
#: What the Python backend's models import beside numpy, which Triton's image has.
PACKAGES = ("tokenizers", "pydantic")

DOCKERFILE = """\
# Triton with what the Python backend's models import.
FROM {image}
RUN pip install --no-cache-dir {packages}
"""
COMPOSE = """\
# docker compose -f {folder}/compose.yaml up, in the folder that holds `models`.
services:
  triton:
    image: "{tag}"
    build: .
    command:
      - tritonserver
      - --model-repository=/models
      - --model-control-mode=explicit
      - --load-model={name}
{compose_policies}    ports: ["127.0.0.1:8000:8000", "127.0.0.1:8001:8001", "127.0.0.1:8002:8002"]
    volumes: ["../models:/models:ro"]
    shm_size: 1gb
    read_only: true
    tmpfs: [/tmp]
    stop_grace_period: 60s
    healthcheck:
      test: [CMD, curl, -fsS, "http://127.0.0.1:8000/v2/health/ready"]
      interval: 10s
      retries: 12
{compose_gpu}"""
COMPOSE_GPU = """\
    deploy:
      resources:
        reservations:
          devices: [{{driver: nvidia, count: {gpus}, capabilities: [gpu]}}]
"""
KUBERNETES = """\
# The repository lies on the volume claim `{host}-models`; the Dockerfile here makes the image.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: "{host}"
  labels: {{app.kubernetes.io/name: "{host}", app.kubernetes.io/version: "{label}"}}
spec:
  replicas: 1
  selector:
    matchLabels: {{app.kubernetes.io/name: "{host}"}}
  template:
    metadata:
      labels: {{app.kubernetes.io/name: "{host}"}}
    spec:
      terminationGracePeriodSeconds: 60
      containers:
        - name: triton
          image: "{tag}"
          args:
            - tritonserver
            - --model-repository=/models
            - --model-control-mode=explicit
            - --load-model={name}
{kubernetes_policies}          ports:
            - {{name: http, containerPort: 8000}}
            - {{name: grpc, containerPort: 8001}}
            - {{name: metrics, containerPort: 8002}}
          readinessProbe:
            httpGet: {{path: /v2/health/ready, port: http}}
          livenessProbe:
            httpGet: {{path: /v2/health/live, port: http}}
            initialDelaySeconds: 60
          resources:
            requests: {{memory: {memory}Mi}}
            limits: {{{limits}}}
          volumeMounts:
            - {{name: models, mountPath: /models, readOnly: true}}
            - {{name: memory, mountPath: /dev/shm}}
      volumes:
        - name: models
          persistentVolumeClaim: {{claimName: {host}-models, readOnly: true}}
        - name: memory
          emptyDir: {{medium: Memory, sizeLimit: 1Gi}}
---
apiVersion: v1
kind: Service
metadata:
  name: "{host}"
spec:
  selector: {{app.kubernetes.io/name: "{host}"}}
  ports:
    - {{name: http, port: 8000, targetPort: http}}
    - {{name: grpc, port: 8001, targetPort: grpc}}
    - {{name: metrics, port: 8002, targetPort: metrics}}
"""
KSERVE = """\
# KServe, with its Triton runtime; storageUri is where `models` was copied to.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: "{host}"
spec:
  predictor:
    model:
      modelFormat: {{name: triton}}
      protocolVersion: v2
      storageUri: "{storage}"
      image: "{tag}"
      args: [--model-control-mode=explicit, "--load-model={name}"{kserve_policies}]
      resources:
        requests: {{memory: {memory}Mi}}
        limits: {{{limits}}}
"""


def written(
    name: str,
    version: str,
    *,
    image: str,
    storage: str,
    gpus: int,
    policies: Mapping[str, str],
    engine_bytes: int,
    versions: Mapping[str, str],
    python_engine: bool = False,
    first: str = "",
) -> dict[str, bytes]:
    """The files by their names in the bundle; `engine_bytes` sizes the memory that is asked for.

    `first` is the model that the server loads, by default the one of this name: an ensemble.
    `gpus` is how many devices are asked for, `policies` the server's host policies by name.
    `python_engine` says that the Python backend runs the engine too.
    """
    imported = (*PACKAGES, *([_runtime(versions)] if python_engine else []))
    packages = " ".join(f"{one}=={versions[one]}" if one in versions else one for one in imported)
    host = _host(name)
    memory = 1024 + 4 * (engine_bytes >> 20)
    limits = f"memory: {2 * memory}Mi" + (f", nvidia.com/gpu: {gpus}" if gpus else "")
    flags = [f"--host-policy={each},{setting}" for each, setting in policies.items()]
    values = {
        "name": first or name,
        "label": re.sub(r"[^\w.-]", "_", version)[:63].strip("-_."),
        "host": host,
        "folder": FOLDER,
        "image": image,
        "packages": packages,
        "tag": f"{host}-triton:{version.replace('+', '_')}",
        "storage": storage or f"pvc://{host}-models",
        "memory": str(memory),
        "limits": limits,
        "compose_gpu": COMPOSE_GPU.format(gpus=gpus) if gpus else "",
        "compose_policies": "".join(f"{' ' * 6}- {flag}\n" for flag in flags),
        "kubernetes_policies": "".join(f"{' ' * 12}- {flag}\n" for flag in flags),
        "kserve_policies": "".join(f', "{flag}"' for flag in flags),
    }
    texts = {
        "Dockerfile": DOCKERFILE,
        "compose.yaml": COMPOSE,
        "kubernetes.yaml": KUBERNETES,
        "kserve.yaml": KSERVE,
    }
    return {f"{FOLDER}/{file}": text.format(**values).encode() for file, text in texts.items()}


def _runtime(versions: Mapping[str, str]) -> str:
    """Which of ONNX Runtime's packages the engine was built with: they exclude one another."""
    return "onnxruntime-gpu" if "onnxruntime-gpu" in versions else "onnxruntime"


def _host(name: str) -> str:
    """A name as Services have it (RFC 1035): letters, digits and dashes, a letter first."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not plain[:1].isalpha():
        plain = f"model-{plain}"
    return plain[:50].strip("-")


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
