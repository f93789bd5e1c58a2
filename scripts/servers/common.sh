# What the scripts of the servers share: installing once, starting in the background, waiting, stopping.
#
# A script sets these and ends with: main "$@"
#   title    the server's name          version  what is installed
#   port     where it listens           prefix   of its environment variables: KAFKA
#   url      what it says it listens at
# and defines these, each called with a directory:
#   fetch    puts the server there; what it leaves is kept when it succeeds
#   launch   starts the server on that data directory and writes its process id to the file pid in it
#   ready    succeeds once the server answers; default: when it listens

# shellcheck shell=bash disable=SC2154
servers=${MILLRACE_SERVERS:-$HOME/.cache/millrace-servers}

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

# home is where this version of the server is installed.
home() { echo "$servers/$(basename "$0" .sh)-$version"; }

install() {
  local home tmp
  home=$(home)
  [ ! -e "$home/installed" ] || return 0
  mkdir -p "$servers"
  tmp=$(mktemp -d "$home.XXXXXX")
  if ! (set -e; fetch "$tmp"); then
    rm -rf "$tmp"
    die "$title $version could not be fetched: see above"
  fi
  touch "$tmp/installed"
  # Two installs at once: the first to finish wins, the other's copy goes.
  mv -T "$tmp" "$home" 2>/dev/null || rm -rf "$tmp"
}

# maven DIR GOAL ARGS... runs a goal of the dependency plugin in DIR.
maven() {
  local dir=$1 goal=$2
  shift 2
  command -v mvn >/dev/null || { echo "Maven (mvn) fetches $title and is not installed" >&2; return 1; }
  # It resets the colours of a terminal, also where there is none.
  (cd "$dir" && mvn --batch-mode --quiet "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:$goal" "$@") | sed 's/\x1b\[[0-9;]*m//g'
}

# jars DIR GROUP:ARTIFACT:VERSION... puts artifacts from Maven Central and all they depend on into DIR/lib.
jars() {
  local dir=$1 artifact group name version
  shift
  {
    echo '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
    echo '<groupId>millrace</groupId><artifactId>node</artifactId><version>1</version><packaging>pom</packaging><dependencies>'
    for artifact; do
      IFS=: read -r group name version <<<"$artifact"
      echo "<dependency><groupId>$group</groupId><artifactId>$name</artifactId><version>$version</version></dependency>"
    done
    echo '</dependencies></project>'
  } >"$dir/pom.xml"
  maven "$dir" copy-dependencies -DincludeScope=runtime -DoutputDirectory="$dir/lib"
}

# java_home MAJOR PROGRAM prints the home of a Java with that program, of that version or newer; fails when there is none.
java_home() {
  local candidate found
  for candidate in "${JAVA_HOME:-}" "$(readlink -f "$(command -v java || true)" | sed 's|/bin/java$||')" /usr/lib/jvm/*; do
    [ -x "$candidate/bin/java" ] && [ -x "$candidate/bin/$2" ] || continue
    found=$("$candidate/bin/java" -version 2>&1 | sed -n '1s/[^"]*"\([0-9]*\).*/\1/p')
    if [ "${found:-0}" -ge "$1" ]; then echo "$candidate"; return; fi
  done
  return 1
}

# background DIR COMMAND... runs a server on a data directory and notes its process id. Its log grows over restarts.
background() {
  local dir=$1
  shift
  nohup "$@" >>"$dir/log" 2>&1 </dev/null &
  echo $! >"$dir/pid"
}

# A process that nobody has waited for yet has ended all the same.
running() { [ -s "$1/pid" ] && kill -0 "$(cat "$1/pid")" 2>/dev/null && ! grep -qs '^State:.*Z' "/proc/$(cat "$1/pid")/status"; }

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

ready() { listening; }

# healthy reports whether the cluster of an index is yellow or green: the port opens before old indices are recovered.
healthy() {
  local answer
  answer=$(curl --silent --max-time 10 "http://127.0.0.1:$port/_cluster/health?wait_for_status=yellow&timeout=5s") || return 1
  [[ $answer == *'"status":"yellow"'* || $answer == *'"status":"green"'* ]]
}

start() {
  local dir=${1:?start needs a data directory} wait=${prefix}_WAIT deadline
  install
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  if running "$dir"; then echo "$title runs on $dir already, pid $(cat "$dir/pid")"; return; fi
  rm -f "$dir/pid"
  if listening; then die "port $port is taken: set ${prefix}_PORT"; fi
  deadline=$((SECONDS + ${!wait:-120}))
  launch "$dir"
  while [ $SECONDS -lt $deadline ] && running "$dir"; do
    if ready "$dir"; then echo "$title $version on $url, pid $(cat "$dir/pid")"; return; fi
    sleep 0.1
  done
  tail -20 "$dir/log" >&2
  stop "$dir"
  die "$title did not start, its log is $dir/log"
}

stop() {
  local dir=${1:?stop needs the data directory} pid
  if running "$dir"; then
    pid=$(cat "$dir/pid")
    kill "$pid"
    for _ in $(seq 300); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    if kill -0 "$pid" 2>/dev/null; then kill -9 "$pid"; fi
  fi
  rm -f "$dir/pid"
}

restart() {
  stop "$@"
  start "$@"
}

main() {
  case ${1:-} in
    install) install ;;
    start | stop | restart) "$@" ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 2 ;;
  esac
}
