# syntax=docker/dockerfile:1
# Images for the three places a release passes through:
#   docker build --target build   -t llmdeploy:build .     checkpoint -> engines and bundle, on a CPU
#   docker build --target runtime -t llmdeploy:runtime .   runs and verifies bundles; no torch
#   docker build --target gpu     -t llmdeploy:gpu .       TensorRT engines, on a host with a GPU
# docker run --rm -v "$PWD":/work llmdeploy:build release
ARG PYTHON=3.12-slim-bookworm
ARG TENSORRT=nvcr.io/nvidia/tensorrt:26.07-py3
# PyTorch's index of CPU wheels: a tenth of the bytes of its CUDA ones.
ARG TORCH_INDEX=

FROM python:${PYTHON} AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE __init__.py __main__.py py.typed ./
COPY toolchain toolchain
COPY passes passes
COPY calibration calibration
COPY deploy deploy
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON} AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# One user without rights; give the mounted folder to it, or pass --user.
RUN useradd --create-home --uid 1000 llmdeploy && install -d -o llmdeploy /work
WORKDIR /work
ENTRYPOINT ["llmdeploy"]
CMD ["--help"]

FROM ${TENSORRT} AS gpu
ENV PIP_NO_CACHE_DIR=1 PIP_BREAK_SYSTEM_PACKAGES=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# TensorRT is the image's own; onnxruntime-gpu shares a module with onnxruntime: never both.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install -c /constraints.txt "$(echo /wheels/*.whl)[export,gpu]"
RUN id -u 1000 >/dev/null 2>&1 || useradd --create-home --uid 1000 llmdeploy; \
    install -d -o 1000 /work
WORKDIR /work
USER 1000
ENTRYPOINT ["llmdeploy"]
CMD ["doctor"]

FROM base AS runtime
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install -c /constraints.txt "$(echo /wheels/*.whl)[cpu]"
USER llmdeploy

FROM base AS build
ARG TORCH_INDEX
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install -c /constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
        "$(echo /wheels/*.whl)[all]"
USER llmdeploy
