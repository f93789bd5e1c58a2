#!/usr/bin/env bash
# Re-creates the files that web/vendor.json lists, from their npm packages, and checks their SHA-256.
# With --update it writes the hashes of what it made into web/vendor.json instead: after changing a version there.
set -euo pipefail
cd "$(dirname "$0")/../web"

for tool in npm node tar sha256sum; do
  command -v "$tool" >/dev/null || { echo "vendor.sh: $tool is not installed" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One line per file: path, package, version, hash, then the parts to join.
node -e '
  for (const f of JSON.parse(require("fs").readFileSync("vendor.json")).files)
    console.log([f.path, f.package, f.version, f.sha256 || "-", ...f.from].join(" "))
' >"$work/files"

while read -r path package version want parts; do
  dir="$work/$package-$version"
  if [ ! -d "$dir" ]; then
    mkdir -p "$dir"
    tarball=$(cd "$dir" && npm pack --silent "$package@$version")
    tar -xzf "$dir/$tarball" -C "$dir"
  fi
  mkdir -p "$(dirname "$path")"
  : >"$work/out"
  for part in $parts; do
    [ -s "$work/out" ] && printf '\n' >>"$work/out"
    cat "$dir/package/$part" >>"$work/out"
  done
  got=$(sha256sum "$work/out" | cut -d' ' -f1)
  if [ "${1:-}" = --update ]; then
    node -e '
      const fs = require("fs"), v = JSON.parse(fs.readFileSync("vendor.json"))
      v.files.find(f => f.path === process.argv[1]).sha256 = process.argv[2]
      fs.writeFileSync("vendor.json", JSON.stringify(v, null, 2) + "\n")
    ' "$path" "$got"
  elif [ "$got" != "$want" ]; then
    echo "vendor.sh: $path from $package $version has SHA-256 $got, vendor.json says $want" >&2
    exit 1
  fi
  cp "$work/out" "$path"
  echo "$path  $package $version"
done <"$work/files"
