#!/usr/bin/env bash
# A real Iceberg REST catalogue on the loopback interface, for the tests that want one: the one that Iceberg tests its clients with, which
# lists its tables in a SQLite database in DIR. It reads and writes tables on the local disk, as the user that runs it, and in S3.
#
#   iceberg-rest.sh install       fetch it from Maven Central (about 210 MB, once)
#   iceberg-rest.sh start DIR     run it with its data in DIR, return when it answers
#   iceberg-rest.sh stop DIR      end the one that runs on DIR
#   iceberg-rest.sh restart DIR   both, on the same data
#
# Environment, with defaults:
#   ICEBERG_REST_PORT       19181
#   ICEBERG_REST_VERSION    1.10.1
#   ICEBERG_REST_HEAP       384m
#   ICEBERG_REST_S3         http://127.0.0.1:19000, the S3 server that has the tables whose location is s3://…; see s3.sh
#   ICEBERG_REST_WAIT       120, seconds that start waits for it
#   AWS_ACCESS_KEY_ID       millrace, its key there
#   AWS_SECRET_ACCESS_KEY   millrace-secret
#   AWS_REGION              us-east-1
#   MILLRACE_SERVERS        ~/.cache/millrace-servers, where servers are installed
#   JAVA_HOME               a Java development kit, 17 or newer; default: the java on the PATH, or one in /usr/lib/jvm
#
# Then: MILLRACE_ICEBERG_REST=http://127.0.0.1:19181 go test ./lake ./sink/iceberg
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

title="Iceberg REST catalogue" prefix=ICEBERG_REST
version=${ICEBERG_REST_VERSION:-1.10.1}
port=${ICEBERG_REST_PORT:-19181}
url=http://127.0.0.1:$port
heap=${ICEBERG_REST_HEAP:-384m}

# The artifact has everything in one file. Its own main class, RESTCatalogServer, listens on all interfaces, and can be told no other: Loopback
# does the same on one.
fetch() {
  maven "$1" copy "-Dartifact=org.apache.iceberg:iceberg-open-api:$version" "-DoutputDirectory=$1"
  mkdir "$1/classes"
  cat >"$1/Loopback.java" <<'JAVA'
import java.net.InetSocketAddress;
import java.util.HashMap;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.iceberg.CatalogUtil;
import org.apache.iceberg.rest.RESTCatalogAdapter;
import org.apache.iceberg.rest.RESTCatalogServlet;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.servlet.ServletContextHandler;
import org.eclipse.jetty.servlet.ServletHolder;

/** Serves a catalogue: a port, then key=value properties of the catalogue. */
public class Loopback {
  public static void main(String[] args) throws Exception {
    Map<String, String> properties = new HashMap<>();
    for (int i = 1; i < args.length; i++) {
      String[] pair = args[i].split("=", 2);
      properties.put(pair[0], pair[1]);
    }
    RESTCatalogAdapter adapter = new RESTCatalogAdapter(CatalogUtil.buildIcebergCatalog("rest", properties, new Configuration()));
    ServletContextHandler handler = new ServletContextHandler();
    handler.addServlet(new ServletHolder(new RESTCatalogServlet(adapter)), "/*");
    Server server = new Server(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])));
    server.setHandler(handler);
    server.start();
    server.join();
  }
}
JAVA
  "$(java_home 17 javac)/bin/javac" -cp "$1/iceberg-open-api-$version.jar" -d "$1/classes" "$1/Loopback.java"
}

# SQLite has one writer at a time, so there is one connection.
launch() {
  local dir=$1 java
  java=$(java_home 17 java)/bin/java || die "the Iceberg REST catalogue needs Java 17 or newer: set JAVA_HOME"
  AWS_ACCESS_KEY_ID=${AWS_ACCESS_KEY_ID:-millrace} AWS_SECRET_ACCESS_KEY=${AWS_SECRET_ACCESS_KEY:-millrace-secret} AWS_REGION=${AWS_REGION:-us-east-1} \
    background "$dir" "$java" "-Xmx$heap" -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    -cp "$(home)/iceberg-open-api-$version.jar:$(home)/classes" Loopback "$port" \
    catalog-impl=org.apache.iceberg.jdbc.JdbcCatalog "uri=jdbc:sqlite:$dir/catalog.db" jdbc.schema-version=V1 clients=1 \
    "warehouse=file://$dir/warehouse" io-impl=org.apache.iceberg.io.ResolvingFileIO \
    "s3.endpoint=${ICEBERG_REST_S3:-http://127.0.0.1:19000}" s3.path-style-access=true
}

ready() { [[ $(curl --silent --max-time 10 "$url/v1/config") == *'"endpoints"'* ]]; }

main "$@"
