#!/usr/bin/env bash
# versitygw (Apache-2.0): a real S3 server over a folder, for tests and measurements.
#
#   dev/s3.sh build | start | stop | kill | restart | status | path | bucket NAME
#
# `build` compiles it once from the Go module proxy into the cache; `start` returns when it answers; `kill` is SIGKILL;
# `path` prints the binary; `bucket` makes a bucket. Several servers can run side by side, each with a port and a folder
# of its own.
# Environment: S3_HOST (127.0.0.1), S3_PORT (9100), S3_DIR (data, log and pid; a folder of the cache per port),
# AWS_ACCESS_KEY_ID (test), AWS_SECRET_ACCESS_KEY (testsecret), MILLSTREAM_OWNER (the pid of a test), MILLSTREAM_CACHE
# (~/.cache/millstream).
# Path-style addressing, region us-east-1. The folder's file system needs user xattrs and O_TMPFILE (ext4, xfs).
set -euo pipefail

version=v1.8.0
cache=${MILLSTREAM_CACHE:-$HOME/.cache/millstream}
host=${S3_HOST:-127.0.0.1}
port=${S3_PORT:-9100}
key=${AWS_ACCESS_KEY_ID:-test}
secret=${AWS_SECRET_ACCESS_KEY:-testsecret}
dir=${S3_DIR:-$cache/s3-$port}
bin=$cache/bin/versitygw-$version

build() {
  [ ! -x "$bin" ] || return 0
  echo "building versitygw $version (once, a minute or two)" >&2
  mkdir -p "$cache/bin/versitygw-build"
  local go
  go=$("$(dirname "$0")/go.sh")
  GOBIN=$cache/bin/versitygw-build "$go" install -p 2 -trimpath -ldflags '-s -w' \
    "github.com/versity/versitygw/cmd/versitygw@$version"
  mv "$cache/bin/versitygw-build/versitygw" "$bin"
  rmdir "$cache/bin/versitygw-build"
}

# A zombie is gone: in a container nobody may collect it.
alive() { grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status"; }
running() { [ -f "$dir/pid" ] && alive "$(cat "$dir/pid")"; }

# With MILLSTREAM_OWNER neither the server nor its folder outlives that process, however it ends.
guard() {
  [ -n "${MILLSTREAM_OWNER:-}" ] || return 0
  local pid
  pid=$(cat "$dir/pid")
  (
    while alive "$MILLSTREAM_OWNER" && alive "$pid"; do sleep 1; done
    alive "$pid" || exit 0
    kill -KILL "$pid"
    while alive "$pid"; do sleep 0.1; done
    rm -rf "$dir"
  ) </dev/null >/dev/null 2>&1 &
}
answers() { curl -fs -o /dev/null --max-time 2 "http://$host:$port/health"; }

start() {
  if running; then
    echo "S3 already at http://$host:$port, pid $(cat "$dir/pid")"
    return
  fi
  if answers; then
    echo "dev/s3.sh: another process answers on $host:$port; set S3_PORT" >&2
    exit 1
  fi
  build
  mkdir -p "$dir/data" "$dir/versions"
  ROOT_ACCESS_KEY=$key ROOT_SECRET_KEY=$secret \
    setsid "$bin" --port "$host:$port" --region us-east-1 --health /health --quiet \
    posix --versioning-dir "$dir/versions" "$dir/data" </dev/null >>"$dir/log" 2>&1 &
  echo $! >"$dir/pid"
  guard
  for _ in $(seq 400); do
    if answers; then
      echo "S3 at http://$host:$port, pid $(cat "$dir/pid")"
      return
    fi
    running || break
    sleep 0.025
  done
  echo "dev/s3.sh: no S3 server on $host:$port; the end of $dir/log:" >&2
  tail -5 "$dir/log" >&2
  exit 1
}

# Sends the signal and waits until process and port are gone, so that a start may follow at once.
end() {
  local pid
  [ -f "$dir/pid" ] || return 0
  pid=$(cat "$dir/pid")
  rm -f "$dir/pid"
  kill "-$1" "$pid" 2>/dev/null || return 0
  for _ in $(seq 200); do
    { alive "$pid" || answers; } || return 0
    sleep 0.025
  done
  kill -KILL "$pid" 2>/dev/null || true
}

bucket() {
  local empty=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 # SHA-256 of an empty body
  curl -sS --fail-with-body -X PUT --aws-sigv4 aws:amz:us-east-1:s3 --user "$key:$secret" \
    -H "x-amz-content-sha256: $empty" "http://$host:$port/$1"
}

case ${1:-} in
build | start) "$1" ;;
stop) end TERM ;;
kill) end KILL ;;
restart)
  end TERM
  start
  ;;
status)
  if running && answers; then echo "http://$host:$port, pid $(cat "$dir/pid")"; else
    echo stopped
    exit 1
  fi
  ;;
path) echo "$bin" ;;
bucket) bucket "${2:?the name of the bucket}" ;;
*)
  sed -n '2,12s/^# \{0,1\}//p' "$0"
  exit 2
  ;;
esac
