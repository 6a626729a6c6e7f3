#!/usr/bin/env bash
# Makes .venv with Headgate in it, every version and hash from a lock file.
#
#   scripts/setup.sh        what `make serve` needs (requirements.lock)
#   scripts/setup.sh dev    that, and the tools for working on it (requirements-dev.lock)
#
# A second run does nothing, unless a lock, pyproject.toml, the folder or $PYTHON changed.
set -euo pipefail
cd "$(dirname "$0")/.."

kind="${1:-run}"
case "$kind" in
  run) lock=requirements.lock ;;
  dev) lock=requirements-dev.lock ;;
  *) echo "usage: scripts/setup.sh [dev]" >&2 && exit 2 ;;
esac

version() { "$1" -c 'import sys; print(sys.version_info[:2] >= (3, 11), *sys.version_info[:2])' 2>/dev/null; }

python=.venv/bin/python
have=$(version $python) || have=none
if [ -n "${PYTHON:-}" ] || [ "${have%% *}" != True ]; then
  found=$(scripts/find_python.sh)
  if [ "$have" != "$(version "$found")" ]; then
    rm -rf .venv
    "$found" -m venv .venv
    have=$(version $python)
  fi
fi

state="$PWD $have $(cat requirements.lock requirements-dev.lock pyproject.toml | cksum)"
for done in ".venv/headgate-$kind" .venv/headgate-dev; do  # dev holds all that run needs
  if [ -f "$done" ] && [ "$(cat "$done")" = "$state" ]; then
    exit 0
  fi
done

echo "Installing into .venv from $lock (once, about a minute) ..." >&2
pip() { $python -m pip --quiet --no-input --disable-pip-version-check "$@"; }
pip --version >/dev/null 2>&1 || $python -m ensurepip >/dev/null
pip install --require-hashes -r "$lock"
pip install --no-deps -e .
echo "$state" >".venv/headgate-$kind"
