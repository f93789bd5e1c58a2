#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, for the given time each: scripts/fuzz.sh 10s
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-10s}
found=0
while IFS=: read -r file target; do
  found=$((found + 1))
  dir=./$(dirname "$file")
  echo "fuzz $dir $target for $time"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$dir"
done < <(git grep -oE '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | sed 's/:func /:/')
[ "$found" -gt 0 ] || { echo "fuzz.sh: no fuzz target found" >&2; exit 1; }
