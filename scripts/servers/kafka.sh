#!/usr/bin/env bash
# A real single-node Apache Kafka (KRaft) on the loopback interface, for the tests that want one.
#
#   kafka.sh install       fetch it from Maven Central (about 43 MB, once)
#   kafka.sh start DIR     run it with its data in DIR, return when it answers
#   kafka.sh stop DIR      end the one that runs on DIR
#
# Environment, with defaults:
#   KAFKA_PORT             19092; the controller takes the port 100 above
#   KAFKA_VERSION          4.4.0
#   KAFKA_HEAP             512m
#   KAFKA_WAIT             60, seconds that start waits for it
#   MILLRACE_SERVERS       ~/.cache/millrace-servers, where servers are installed
#   JAVA_HOME              a Java runtime, 17 or newer; default: the java on the PATH
#
# Then: MILLRACE_KAFKA=127.0.0.1:19092 go test ./eventlog
set -euo pipefail

version=${KAFKA_VERSION:-4.4.0}
port=${KAFKA_PORT:-19092}
heap=${KAFKA_HEAP:-512m}
home=${MILLRACE_SERVERS:-$HOME/.cache/millrace-servers}/kafka-$version
java=${JAVA_HOME:+$JAVA_HOME/bin/}java

die() { echo "kafka.sh: $*" >&2; exit 1; }

install() {
  [ -e "$home/installed" ] && return
  command -v mvn >/dev/null || die "Maven (mvn) fetches Kafka and is not installed"
  mkdir -p "$(dirname "$home")"
  local tmp
  tmp=$(mktemp -d "$home.XXXXXX")
  # slf4j-simple is the logging that Kafka leaves open; it writes to stderr.
  cat > "$tmp/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>millrace</groupId>
  <artifactId>kafka-node</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>$version</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
POM
  mvn --batch-mode --quiet --file "$tmp/pom.xml" \
    org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$tmp/lib" || die "fetching Kafka $version from Maven Central: see above"
  touch "$tmp/installed"
  # Two installs at once: the first to finish wins, the other's copy goes.
  mv -T "$tmp" "$home" 2>/dev/null || rm -rf "$tmp"
}

running() { [ -f "$1/pid" ] && kill -0 "$(cat "$1/pid")" 2>/dev/null; }

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

# configure writes the node's configuration. Every topic that Kafka makes for itself wants three replicas unless told
# otherwise, and transactions then wait for them for ever.
configure() {
  cat > "$1/server.properties" <<PROPERTIES
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

start() {
  local dir=${1:?start needs a data directory} deadline
  install
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  if running "$dir"; then echo "Kafka runs on $dir already, pid $(cat "$dir/pid")"; return; fi
  if listening; then die "port $port is taken: set KAFKA_PORT"; fi
  configure "$dir"
  if [ ! -e "$dir/data/meta.properties" ]; then
    "$java" -cp "$home/lib/*" kafka.tools.StorageTool format --standalone --config "$dir/server.properties" \
      --cluster-id "$("$java" -cp "$home/lib/*" kafka.tools.StorageTool random-uuid 2>/dev/null)" > "$dir/log" 2>&1 ||
      { cat "$dir/log" >&2; die "Kafka did not format $dir/data"; }
  fi
  nohup "$java" "-Xms$heap" "-Xmx$heap" -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    -cp "$home/lib/*" kafka.Kafka "$dir/server.properties" > "$dir/log" 2>&1 < /dev/null &
  echo $! > "$dir/pid"
  deadline=$((SECONDS + ${KAFKA_WAIT:-60}))
  while [ $SECONDS -lt $deadline ] && running "$dir"; do
    if listening; then echo "Kafka $version on 127.0.0.1:$port, pid $(cat "$dir/pid")"; return; fi
    sleep 0.2
  done
  tail -20 "$dir/log" >&2
  stop "$dir"
  die "Kafka did not start, its log is $dir/log"
}

stop() {
  local dir=${1:?stop needs the data directory} pid
  if running "$dir"; then
    pid=$(cat "$dir/pid")
    kill "$pid"
    for _ in $(seq 150); do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
    if kill -0 "$pid" 2>/dev/null; then kill -9 "$pid"; fi
  fi
  rm -f "$dir/pid"
}

case ${1:-} in
  install) install ;;
  start | stop) "$@" ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 2 ;;
esac
