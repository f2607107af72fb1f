#!/usr/bin/env bash
# Makes a virtual environment from a lock file; does nothing if it is there and current.
#
#   environment.sh FOLDER LOCK [editable]      editable: install this checkout into it as well
#
# PYTHON chooses the interpreter; the default is the newest of 3.13, 3.12 and 3.11 that is there
# (TensorFlow has no wheels for later ones yet).
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1 lock=$2 editable=${3:-}

fail() {
  echo "convserve: $*" >&2
  exit 1
}

usable() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
    if command -v "$candidate" >/dev/null && usable "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  fail "needs Python 3.11, 3.12 or 3.13 (set PYTHON to one); found: $(python3 --version 2>&1)"
}

# Debian and Ubuntu leave venv out of their Python.
need_venv() {
  "$1" -c 'import ensurepip, venv' 2>/dev/null && return
  local package
  package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing $package"
    apt-get update -qq && apt-get install -y -qq "$package" >/dev/null && return
  fi
  fail "this Python cannot make virtual environments; run: sudo apt-get install $package"
}

stamp=$(cat "$lock" pyproject.toml "$0" | sha256sum)
[ "$(cat "$folder/.complete" 2>/dev/null)" = "$stamp $PWD" ] && exit 0

python=$(find_python)
need_venv "$python"
echo "making $folder with $("$python" --version) and the packages of $lock (a few minutes the first time)"
rm -rf "$folder"
"$python" -m venv "$folder"
"$folder/bin/python" -m pip --disable-pip-version-check install -qq --require-hashes -r "$lock" ||
  fail "could not install the packages of $lock; is the package index reachable?"
if [ -n "$editable" ]; then
  "$folder/bin/python" -m pip --disable-pip-version-check install -qq --no-deps --no-build-isolation -e .
fi
echo "$stamp $PWD" >"$folder/.complete"
