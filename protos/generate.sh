#!/usr/bin/env bash
# Writes the Python of protos/ into a folder (default: in place). PYTHON must have the tools of
# locks/protos.txt; `make protos` sees to that. They are the oldest that are supported, because generated
# code refuses a runtime older than its generator.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
python=${PYTHON:-python3}
googleapis=$("$python" -c 'import pathlib, google.rpc.status_pb2 as s; print(pathlib.Path(s.__file__).parents[2])')
PATH="$(dirname "$python"):$PATH"
"$python" -m grpc_tools.protoc -I "$here" -I "$googleapis" \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="$out" --mypy_grpc_out="$out" \
  "$here"/convserve_protos/*.proto 2> >(grep -v "^Writing mypy" >&2)
# bundle.proto has no service
rm -f "$out"/convserve_protos/bundle_pb2_grpc.py "$out"/convserve_protos/bundle_pb2_grpc.pyi
