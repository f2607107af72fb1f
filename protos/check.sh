#!/usr/bin/env bash
# Fails, with the difference, if the committed Python is not what the .proto files give.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
"$here/generate.sh" "$fresh"
for file in "$here"/convserve_protos/*_pb2*.py*; do
  name=${file##*/}
  [ -e "$fresh/convserve_protos/$name" ] || { echo "no .proto file gives $name" >&2; exit 1; }
done
for file in "$fresh"/convserve_protos/*; do
  diff -u "$here/convserve_protos/${file##*/}" "$file" ||
    { echo "${file##*/} is not current; run: make protos" >&2; exit 1; }
done
