#!/usr/bin/env bash
# A real S3 server, versitygw, on the loopback interface, for the tests that want one. Its buckets are folders in DIR/buckets,
# its objects files in them.
#
#   s3.sh install       compile it from its Go module (a minute or two, once)
#   s3.sh start DIR     run it with its data in DIR, return when it answers
#   s3.sh stop DIR      end the one that runs on DIR
#   s3.sh restart DIR   both, on the same data
#
# Environment, with defaults:
#   S3_PORT                 19000
#   S3_VERSION              v1.8.0, of versitygw
#   S3_BUCKET               lake, which is made at start
#   S3_WAIT                 120, seconds that start waits for it
#   AWS_ACCESS_KEY_ID       millrace, the only key it takes
#   AWS_SECRET_ACCESS_KEY   millrace-secret
#   AWS_REGION              us-east-1
#   MILLRACE_SERVERS        ~/.cache/millrace-servers, where servers are installed
#
# Then, with the same key in the environment: MILLRACE_S3=http://127.0.0.1:19000 go test ./lake
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

title=versitygw prefix=S3
version=${S3_VERSION:-v1.8.0}
port=${S3_PORT:-19000}
url=http://127.0.0.1:$port

fetch() { GOBIN=$1 GOFLAGS='' go install "github.com/versity/versitygw/cmd/versitygw@$version"; }

launch() {
  mkdir -p "$1/buckets/${S3_BUCKET:-lake}"
  ROOT_ACCESS_KEY=${AWS_ACCESS_KEY_ID:-millrace} ROOT_SECRET_KEY=${AWS_SECRET_ACCESS_KEY:-millrace-secret} \
    background "$1" "$(home)/versitygw" --port "127.0.0.1:$port" --region "${AWS_REGION:-us-east-1}" posix "$1/buckets"
}

main "$@"
