#!/usr/bin/env bash
# A real single-node Apache Kafka (KRaft) on the loopback interface, for the tests that want one.
#
#   kafka.sh install       fetch it from Maven Central (about 43 MB, once)
#   kafka.sh start DIR     run it with its data in DIR, return when it answers
#   kafka.sh stop DIR      end the one that runs on DIR
#   kafka.sh restart DIR   both, on the same data
#
# Environment, with defaults:
#   KAFKA_PORT             19092; the controller takes the port 100 above
#   KAFKA_VERSION          4.4.0
#   KAFKA_HEAP             512m
#   KAFKA_WAIT             120, seconds that start waits for it
#   MILLRACE_SERVERS       ~/.cache/millrace-servers, where servers are installed
#   JAVA_HOME              a Java runtime, 17 or newer; default: the java on the PATH
#
# Then: MILLRACE_KAFKA=127.0.0.1:19092 go test ./eventlog
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

title=Kafka prefix=KAFKA
version=${KAFKA_VERSION:-4.4.0}
port=${KAFKA_PORT:-19092}
url=127.0.0.1:$port
heap=${KAFKA_HEAP:-512m}

# slf4j-simple is the logging that Kafka leaves open; it writes to stderr.
fetch() { jars "$1" "org.apache.kafka:kafka_2.13:$version" org.slf4j:slf4j-simple:1.7.36; }

# configure writes the node's configuration. Every topic that Kafka makes for itself wants three replicas unless told
# otherwise, and transactions then wait for them for ever.
configure() {
  cat >"$1/server.properties" <<PROPERTIES
node.id=1
process.roles=broker,controller
listeners=CLIENTS://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 100))
listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=CLIENTS
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:$((port + 100))
log.dirs=$1/data
num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
PROPERTIES
}

launch() {
  local dir=$1 java
  java=$(java_home 17 java)/bin/java || die "Kafka needs Java 17 or newer: set JAVA_HOME"
  configure "$dir"
  if [ ! -e "$dir/data/meta.properties" ]; then
    "$java" -cp "$(home)/lib/*" kafka.tools.StorageTool format --standalone --config "$dir/server.properties" \
      --cluster-id "$("$java" -cp "$(home)/lib/*" kafka.tools.StorageTool random-uuid 2>/dev/null)" >"$dir/log" 2>&1 ||
      { cat "$dir/log" >&2; die "Kafka did not format $dir/data"; }
  fi
  background "$dir" "$java" "-Xms$heap" "-Xmx$heap" -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    -cp "$(home)/lib/*" kafka.Kafka "$dir/server.properties"
}

main "$@"
