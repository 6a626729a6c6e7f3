#!/usr/bin/env bash
# Proves that the committed stubs are what scripts/gen_protos.sh makes of proto/.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
scripts/gen_protos.sh "$fresh"
stubs() { (cd "$1" && find headgate -name '*_pb2*.py' -o -name '*_pb2*.pyi'); }
for file in $({ stubs "$fresh"; stubs clients/python; } | sort -u); do
  if ! cmp -s "$fresh/$file" "clients/python/$file"; then
    echo "stale stub: clients/python/$file (run: make gen)" >&2
    exit 1
  fi
done
echo "stubs are fresh"
