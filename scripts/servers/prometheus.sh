#!/usr/bin/env bash
# A real Prometheus on the loopback interface, for the tests that want one.
#
#   prometheus.sh install            fetch it from Debian, unpacked beside the others (about 19 MB, once)
#   prometheus.sh start DIR          run it with its data in DIR, return when it answers
#   prometheus.sh stop DIR           end the one that runs on DIR
#   prometheus.sh restart DIR        both, on the same data
#   prometheus.sh promtool ARGS...   its promtool: check and test rules
#
# Environment, with defaults:
#   PROMETHEUS_PORT             19090
#   PROMETHEUS_VERSION          2.42, or how the version begins that this Debian has
#   PROMETHEUS_TARGETS          127.0.0.1:8420, what it scrapes, with blanks between
#   PROMETHEUS_INTERVAL         1s, between scrapes and between evaluations of rules
#   PROMETHEUS_RULES            none, a file of rules
#   PROMETHEUS_WAIT             120, seconds that start waits for it
#   MILLRACE_SERVERS            ~/.cache/millrace-servers, where servers are installed
#
# Then: MILLRACE_PROMETHEUS=1 go test -run Prometheus ./test, which starts its own
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

title=Prometheus prefix=PROMETHEUS
version=${PROMETHEUS_VERSION:-2.42}
port=${PROMETHEUS_PORT:-19090}
url=http://127.0.0.1:$port

# The package is unpacked, not installed: that would start a server on all interfaces.
fetch() {
  command -v apt-get >/dev/null || { echo "Prometheus comes as a Debian package, and there is no apt-get" >&2; return 1; }
  [ "$(id -u)" != 0 ] || apt-get update -qq || return 1
  (cd "$1" && apt-get -o APT::Sandbox::User=root -q download "prometheus=$version*" && dpkg-deb -x prometheus_*.deb . && rm prometheus_*.deb)
}

configure() {
  local interval=${PROMETHEUS_INTERVAL:-1s} target
  cat <<YML
global:
  scrape_interval: $interval
  scrape_timeout: $interval
  evaluation_interval: $interval
YML
  [ -z "${PROMETHEUS_RULES:-}" ] || echo "rule_files: ['$(realpath "$PROMETHEUS_RULES")']"
  cat <<YML
scrape_configs:
- job_name: millrace
  static_configs:
  - targets:
YML
  for target in ${PROMETHEUS_TARGETS:-127.0.0.1:8420}; do echo "    - '$target'"; done
}

launch() {
  configure >"$1/prometheus.yml"
  background "$1" "$(home)/usr/bin/prometheus" --config.file="$1/prometheus.yml" --storage.tsdb.path="$1/data" \
    --web.listen-address="127.0.0.1:$port" --log.level=warn
}

ready() { curl --silent --fail --max-time 5 --output /dev/null "$url/-/ready"; }

if [ "${1:-}" = promtool ]; then
  install
  exec "$(home)/usr/bin/promtool" "${@:2}"
fi

main "$@"
