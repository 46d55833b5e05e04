#!/usr/bin/env bash
# Runs a command beside one Kafka broker and one S3 server of its own: dev/with-servers.sh COMMAND…
#
# The command finds them by MILLSTREAM_TEST_KAFKA (host:port) and MILLSTREAM_TEST_S3 (url) with the usual AWS variables.
# Both have free ports and a fresh folder, and are gone with their data when the command ends, however it ends.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${MILLSTREAM_CACHE:-$HOME/.cache/millstream}

free_port() { # prints the first of COUNT neighbouring free ports below the range of outgoing connections
  local port neighbour
  while port=$((20000 + RANDOM % 10000)); do
    for ((neighbour = port; neighbour < port + $1; neighbour++)); do
      ! (exec 3<>"/dev/tcp/127.0.0.1/$neighbour") 2>/dev/null || continue 2
    done
    echo "$port"
    return
  done
}

mkdir -p "$cache/run"
dir=$(mktemp -d "$cache/run/servers-XXXXXX")
export MILLSTREAM_OWNER=$$
export KAFKA_PORT S3_PORT KAFKA_DIR=$dir/kafka S3_DIR=$dir/s3
KAFKA_PORT=$(free_port 2)
S3_PORT=$(free_port 1)
trap '"$here/kafka.sh" kill; "$here/s3.sh" kill; rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$here/s3.sh" start >&2
"$here/kafka.sh" start >&2
export MILLSTREAM_TEST_KAFKA=127.0.0.1:$KAFKA_PORT MILLSTREAM_TEST_S3=http://127.0.0.1:$S3_PORT
export AWS_ACCESS_KEY_ID=${AWS_ACCESS_KEY_ID:-test} AWS_SECRET_ACCESS_KEY=${AWS_SECRET_ACCESS_KEY:-testsecret}
# What the tests start is theirs, not this script's.
env -u MILLSTREAM_OWNER -u KAFKA_PORT -u KAFKA_DIR -u S3_PORT -u S3_DIR "$@"
