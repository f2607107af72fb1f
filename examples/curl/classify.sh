#!/usr/bin/env bash
# Asks a Convserve server what digit a picture shows: classify.sh [PICTURE [ADDRESS [MODEL]]]
set -euo pipefail
picture=${1:-$(dirname "$0")/../seven.png}
address=${2:-http://127.0.0.1:8080}
model=${3:-mnist}

# The body is the file. --fail-with-body: print an error too, and end with 22.
curl --silent --show-error --fail-with-body --data-binary "@$picture" "$address/v1/models/$model:classify?top_k=1"
echo
