#!/usr/bin/env bash
# Builds the release of a version into a folder: the program and its checksum, and nothing that depends on the machine or the moment. Two runs
# on the same commit with the same Go and C compiler make the same bytes, in whatever folder.
#
#   scripts/release.sh VERSION FOLDER
#
# The program is static: it needs nothing of the system that it runs on. Names are looked up, and users, by Go itself (netgo, osusergo). The
# linker warns of three functions of the C library that would load plugins. They are DuckDB's, for extensions, home directories and downloads,
# which are off.
set -euo pipefail
[ $# = 2 ] || { echo "usage: $0 VERSION FOLDER" >&2; exit 2; }
version=$1 out=$2
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || { echo "$version is no version: want one such as 1.4.0 or 1.4.0-rc.1" >&2; exit 2; }
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
name=millrace-$version-$(go env GOOS)-$(go env GOARCH)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
CGO_ENABLED=1 go build -trimpath -tags netgo,osusergo -o "$out/$name" \
  -ldflags "-s -w -buildid= -X main.version=$version -extldflags '-static -Wl,--build-id=none'" ./cmd/millrace 2>"$log" || { cat "$log" >&2; exit 1; }
unknown=$(grep 'statically linked applications' "$log" | grep -v "'dlopen'\|'getpwuid'\|'getaddrinfo'" || true)
[ -z "$unknown" ] || { echo "$unknown" >&2; exit 1; }
(cd "$out" && sha256sum "$name" >"$name.sha256")
echo "$out/$name"
