#!/usr/bin/env bash
# Writes the Python of protos/ into a folder (default: in place). PYTHON must have the tools of
# locks/protos.txt; `make protos` sees to that. They are the oldest that are supported, because generated
# code refuses a runtime older than its generator. google/rpc is there for clients in other languages;
# its Python is googleapis-common-protos'.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
python=${PYTHON:-python3}
PATH="$(dirname "$python"):$PATH"
"$python" -m grpc_tools.protoc -I "$here" \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="$out" --mypy_grpc_out="$out" \
  "$here"/convserve_protos/*.proto 2> >(grep -v "^Writing mypy" >&2)
# bundle.proto has no service, and the server answers that of open_inference.proto without stubs.
for name in bundle open_inference; do
  rm -f "$out/convserve_protos/${name}_pb2_grpc.py" "$out/convserve_protos/${name}_pb2_grpc.pyi"
done
