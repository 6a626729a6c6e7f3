#!/usr/bin/env bash
# Prints the Python to build environments with: $PYTHON if that is set, else the first that will do.
#
# To do, it must run (a version manager's stand-in may not), be 3.11 or newer, and have venv and
# ensurepip, which Debian packages apart.
set -euo pipefail

tell='import sys, venv, ensurepip; print("ok" if sys.version_info >= (3, 11) else "too old")'
tried=
for name in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
  if ! path=$(command -v "$name"); then
    tried+=$'\n'"  $name: not found"
    continue
  fi
  answer=$("$path" -c "$tell" 2>&1) || true
  case "$answer" in
    ok) echo "$path" && exit 0 ;;
    "too old") ;;
    *Error:*) answer="${answer##*Error: }" ;; # such as: No module named 'ensurepip'
    *) answer="does not run" ;;
  esac
  tried+=$'\n'"  $path: $answer"
done
echo "Headgate needs Python 3.11 or newer, with venv and ensurepip. Tried:$tried
Install one (Debian, Ubuntu: apt install python3 python3-venv), or name yours:
  make setup PYTHON=/path/to/python" >&2
exit 1
