#!/usr/bin/env bash
# Writes the lock files anew from pyproject.toml and protos.in, with the newest versions that fit.
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
lock serve.txt ../pyproject.toml --extra serve
lock gpu.txt ../pyproject.toml --extra gpu
lock train.txt ../pyproject.toml --extra train
lock dev.txt ../pyproject.toml --extra serve --extra train --group ../pyproject.toml:dev
lock protos.txt protos.in
