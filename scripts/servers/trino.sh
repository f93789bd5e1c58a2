#!/usr/bin/env bash
# A real single-node Trino with its Iceberg connector on the loopback interface, for the tests that want one. It has no catalogue at
# first: a test makes one, CREATE CATALOG … USING iceberg, with the address and token of the lake that it started.
#
#   trino.sh install       fetch it from Maven Central (about 400 MB, once)
#   trino.sh start DIR     run it with its data in DIR, return when it answers a query
#   trino.sh stop DIR      end the one that runs on DIR
#   trino.sh restart DIR   both, on the same data
#
# Environment, with defaults:
#   TRINO_PORT             19080
#   TRINO_VERSION          476
#   TRINO_HEAP             1g
#   TRINO_WAIT             240, seconds that start waits for it
#   MILLRACE_SERVERS       ~/.cache/millrace-servers, where servers are installed
#   JAVA_HOME              a Java runtime, 24 or newer; default: one in /usr/lib/jvm
#
# It reads lakes on the local disk, as the user that runs it, and in S3, with the keys that a test gives it.
#
# Then: MILLRACE_TRINO=http://127.0.0.1:19080 go test ./delivery/... ./test -run Trino
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

title=Trino prefix=TRINO
version=${TRINO_VERSION:-476}
port=${TRINO_PORT:-19080}
url=http://127.0.0.1:$port
heap=${TRINO_HEAP:-1g}
TRINO_WAIT=${TRINO_WAIT:-240} # on a busy machine it takes a minute

# The core of the server has no connector; that of Iceberg is a plug-in of its own, and the only one here. The core's archive has hard
# links, which Maven would unpack as empty files.
fetch() {
  maven "$1" copy "-Dartifact=io.trino:trino-server-core:$version:tar.gz" "-DoutputDirectory=$1"
  mkdir "$1/server"
  tar xzf "$1/trino-server-core-$version.tar.gz" -C "$1/server" --strip-components=1 --exclude='*/plugin/*'
  rm "$1/trino-server-core-$version.tar.gz"
  maven "$1" unpack "-Dartifact=io.trino:trino-iceberg:$version:zip" "-DoutputDirectory=$1/server/plugin"
}

# configure writes the server's configuration. A query of these tests is small.
configure() {
  mkdir -p "$1/var"
  cat >"$1/config.properties" <<PROPERTIES
coordinator=true
node-scheduler.include-coordinator=true
http-server.http.port=$port
discovery.uri=$url
catalog.management=dynamic
catalog.store=memory
plugin.dir=$(home)/server/plugin
query.max-memory=512MB
query.max-memory-per-node=256MB
memory.heap-headroom-per-node=256MB
PROPERTIES
  printf 'io.trino=WARN\nio.airlift=WARN\n' >"$1/log.properties"
}

# Without its launcher, whose process would be another one than the server's. Its address must be said twice: the default is that of the
# host's name, which other machines may reach.
launch() {
  local dir=$1 java
  java=$(java_home 24 java)/bin/java || die "Trino needs Java 24 or newer: set JAVA_HOME"
  configure "$dir"
  cd "$dir/var"
  background "$dir" "$java" "-Xmx$heap" -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -Djdk.attach.allowAttachSelf=true \
    -XX:+EnableDynamicAgentLoading --enable-native-access=ALL-UNNAMED --sun-misc-unsafe-memory-access=allow --add-modules=jdk.incubator.vector \
    -Dnode.environment=test -Dnode.id=millrace "-Dnode.data-dir=$dir/var" -Dnode.bind-ip=127.0.0.1 -Dnode.internal-address=127.0.0.1 \
    "-Dconfig=$dir/config.properties" "-Dlog.levels-file=$dir/log.properties" -cp "$(home)/server/lib/*" io.trino.server.TrinoServer
}

# It says that it has started before there is a node that works: a query tells.
ready() {
  local answer next
  answer=$(curl --silent --max-time 10 -H 'X-Trino-User: ready' --data 'SELECT count(*) FROM (VALUES 1, 2) t (x) GROUP BY x' "$url/v1/statement") || return 1
  while next=$(grep -o '"nextUri":"[^"]*"' <<<"$answer"); do
    next=${next#*:\"}
    answer=$(curl --silent --max-time 10 -H 'X-Trino-User: ready' "${next%\"}") || return 1
  done
  [[ $answer == *'"state":"FINISHED"'* ]]
}

main "$@"
