#!/usr/bin/env bash
# Makes Python of the .proto files, here or in the folder that is named. PYTHON must have grpcio-tools.
set -euo pipefail
cd "$(dirname "$0")"
protos=${PROTOS:-../../protos}
"${PYTHON:-python3}" -m grpc_tools.protoc -I "$protos" --python_out="${1:-.}" --grpc_python_out="${1:-.}" \
  convserve_protos/bundle.proto convserve_protos/classifier.proto google/rpc/status.proto
