#!/usr/bin/env bash
# Writes requirements.lock and requirements-dev.lock from pyproject.toml, for every platform at once:
# hashes of all files of each release, and no word about where they come from.
#
#   scripts/lock.sh             keeps the versions that still fit
#   scripts/lock.sh --upgrade   takes the newest
set -euo pipefail
cd "$(dirname "$0")/.."

uv=0.13.8
venv=.cache/lock-venv-$uv
if [ ! -x "$venv/bin/uv" ]; then
  "$(scripts/find_python.sh)" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv"
fi
compile() {
  "$venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --annotation-style line \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" "$@" pyproject.toml
}
compile "$@" --extra all -o requirements.lock
# The tools must fit what runs, so the first lock binds the second.
compile "$@" --extra all --group dev -c requirements.lock -o requirements-dev.lock
if grep -nE '://|^--' requirements.lock requirements-dev.lock; then
  echo "a lock names an address" >&2
  exit 1
fi
