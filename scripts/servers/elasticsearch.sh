#!/usr/bin/env bash
# A real single-node Elasticsearch on the loopback interface, for the tests that want one.
#
#   elasticsearch.sh install       fetch it from Maven Central (about 130 MB, once)
#   elasticsearch.sh start DIR     run it with its data in DIR, return when it answers
#   elasticsearch.sh stop DIR      end the one that runs on DIR
#   elasticsearch.sh restart DIR   both, on the same data
#
# Environment, with defaults:
#   ELASTICSEARCH_PORT             19210; the transport protocol takes the port 100 above
#   ELASTICSEARCH_VERSION          9.5.3
#   ELASTICSEARCH_HEAP             512m
#   ELASTICSEARCH_WAIT             120, seconds that start waits for it
#   MILLRACE_SERVERS               ~/.cache/millrace-servers, where servers are installed
#   JAVA_HOME                      a full JDK, 21 or newer; default: one in /usr/lib/jvm
#
# What Maven Central has is the server that Elastic's own integration tests start: core and security, without the modules
# for scripts, reindexing and _delete_by_query. It does not run as root; for root this script runs it as another user, who must be
# able to reach DIR.
#
# Then: MILLRACE_ELASTICSEARCH=http://127.0.0.1:19210 go test ./index/... ./sink/elastic/...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

title=Elasticsearch prefix=ELASTICSEARCH
version=${ELASTICSEARCH_VERSION:-9.5.3}
port=${ELASTICSEARCH_PORT:-19210}
url=http://127.0.0.1:$port
heap=${ELASTICSEARCH_HEAP:-512m}
nobody=65534

fetch() {
  maven "$1" unpack -Dartifact="org.elasticsearch.distribution.integ-test-zip:elasticsearch:$version:zip" -DoutputDirectory="$1"
  mv "$1/elasticsearch-$version" "$1/server"
}

# The server writes beside its configuration, and root's installation is closed to others: each data directory has a copy.
launch() {
  local dir=$1 java as=()
  java=$(java_home 21 javac) || die "Elasticsearch $version needs a JDK, 21 or newer: set JAVA_HOME"
  if [ ! -e "$dir/server/copied" ]; then
    rm -rf "$dir/server"
    cp -r "$(home)/server" "$dir/server"
    mkdir -p "$dir/server/plugins" "$dir/server/logs" "$dir/data" "$dir/tmp"
    touch "$dir/server/copied"
  fi
  cat >"$dir/server/config/elasticsearch.yml" <<YML
cluster.name: millrace-test
discovery.type: single-node
network.host: 127.0.0.1
http.port: $port
transport.port: $((port + 100))
xpack.security.enabled: false
cluster.routing.allocation.disk.threshold_enabled: false
# Counts garbage as used and then answers 429, on a small heap all the time.
indices.breaker.total.use_real_memory: false
path.data: $dir/data
path.logs: $dir/server/logs
YML
  touch "$dir/log"
  if [ "$(id -u)" = 0 ]; then
    chown -R $nobody:$nobody "$dir"
    as=(setpriv "--reuid=$nobody" "--regid=$nobody" --clear-groups)
  fi
  # As a daemon it writes the server's own process id: that of the process here is its launcher's, which ends.
  (cd / && env ES_JAVA_HOME="$java" ES_JAVA_OPTS="-Xms$heap -Xmx$heap" ES_TMPDIR="$dir/tmp" HOME="$dir" \
    "${as[@]}" "$dir/server/bin/elasticsearch" --daemonize --pidfile "$dir/pid" >>"$dir/log" 2>&1 </dev/null) ||
    { tail -20 "$dir/log" >&2; die "Elasticsearch did not start, its log is $dir/log"; }
}

ready() { healthy; }

main "$@"
