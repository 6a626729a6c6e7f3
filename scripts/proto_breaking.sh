#!/usr/bin/env bash
# Compares proto/ with what callers may have already, and fails if their stubs would break.
#
# That is the last tag; before the first tag, where this branch left main; on main itself, the commit
# before. A shallow clone may hold none of them: then there is nothing to compare with, and it says so.
set -euo pipefail
cd "$(dirname "$0")/.."

nothing() {
  echo "proto-breaking: nothing to compare with: $1"
  exit 0
}

head=$(git rev-parse --verify --quiet 'HEAD^{commit}') || nothing "no commit yet, or not a git checkout"
git diff --quiet HEAD -- proto && edited=false || edited=true

base=
for ref in "$(git describe --tags --abbrev=0 2>/dev/null || true)" origin/main main; do
  [ -n "$ref" ] || continue
  commit=$(git merge-base "$ref" HEAD 2>/dev/null) || continue
  if [ "$commit" = "$head" ] && [ $edited = false ]; then
    continue # the very same files
  fi
  base=$commit name=$ref
  break
done
if [ -z "$base" ]; then
  base=$(git rev-parse --verify --quiet 'HEAD~1^{commit}') || nothing "this commit has no parent here"
  name="the commit before"
fi
git cat-file -e "$base:proto" 2>/dev/null || nothing "$name has no proto/"

before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
git archive "$base" proto | tar -x -C "$before"
cp buf.yaml "$before" # today's rules for both
.venv/bin/buf breaking --against "$before"
echo "proto-breaking: nothing breaks since $name ($(git rev-parse --short "$base"))"
