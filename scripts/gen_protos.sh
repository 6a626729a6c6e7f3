#!/usr/bin/env bash
# Generates the Python stubs from proto/ into clients/python (or into the folder given as $1).
#
# The generator is old on purpose and lives in an environment of its own: generated code refuses to
# load on a runtime older than its generator, so this version is every consumer's floor. pyproject's
# lower bounds equal it.
set -euo pipefail
cd "$(dirname "$0")/.."

out="${1:-clients/python}"
venv=.cache/gen-venv
if [ ! -x "$venv/bin/protoc-gen-mypy" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q grpcio-tools==1.75.1 mypy-protobuf==3.7.0 "setuptools<81"
fi

mkdir -p "$out"
rm -f "$out"/headgate/v1/*_pb2*.py "$out"/headgate/v1/*_pb2*.pyi
mapfile -t protos < <(find proto -name '*.proto' | sort)
mapfile -t services < <(find proto -name '*_service.proto' | sort)
export PATH="$PWD/$venv/bin:$PATH"
python -m grpc_tools.protoc -I proto --python_out="$out" --mypy_out=quiet:"$out" "${protos[@]}"
python -m grpc_tools.protoc -I proto --grpc_python_out="$out" --mypy_grpc_out=quiet:"$out" "${services[@]}"
