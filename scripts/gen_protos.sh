#!/usr/bin/env bash
# Generates the Python stubs from proto/ into clients/python (or into the folder given as $1).
#
# The generator is old on purpose and lives in an environment of its own: generated code refuses to
# load on a runtime older than its generator, so this version is every consumer's floor. pyproject's
# lower bounds equal it.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C # the order of the files must not depend on the language

out="${1:-clients/python}"
venv=.cache/gen-venv
if [ ! -f "$venv/complete" ]; then
  python=$(scripts/find_python.sh)
  rm -rf "$venv"
  "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    grpcio-tools==1.75.1 mypy-protobuf==3.7.0 "setuptools<81"
  touch "$venv/complete"
fi

# Made beside, so that a mistake in a .proto leaves the stubs as they are.
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
export PATH="$PWD/$venv/bin:$PATH"
find proto -name '*.proto' | sort | xargs \
  "$venv/bin/python" -m grpc_tools.protoc -I proto --python_out="$fresh" --mypy_out=quiet:"$fresh"
find proto -name '*_service.proto' | sort | xargs \
  "$venv/bin/python" -m grpc_tools.protoc -I proto --grpc_python_out="$fresh" --mypy_grpc_out=quiet:"$fresh"

mkdir -p "$out/headgate"
find "$out/headgate" -name '*_pb2*.py*' -type f -delete
cp -R "$fresh/." "$out"
