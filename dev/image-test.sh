#!/usr/bin/env bash
# Runs the images of dev/image.sh with runc as Kubernetes would: uid 65532, no capabilities, read-only root, process 1 is the
# program. One driver and one executor run a pipeline of generated rows; both must answer their probes and end with 0 at SIGTERM.
#
#   dev/image-test.sh        needs root (runc) and the archives of dev/image.sh build
#
# Environment: MILLSTREAM_CACHE (~/.cache/millstream).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${MILLSTREAM_CACHE:-$HOME/.cache/millstream}
limit=$((120 * 1024 * 1024))
for tool in runc jq curl; do
  command -v $tool >/dev/null || {
    echo "dev/image-test.sh: $tool is missing; run dev/setup.sh image" >&2
    exit 1
  }
done
if [ "$(id -u)" != 0 ]; then
  if sudo -n true 2>/dev/null; then exec sudo env "PATH=$PATH" "MILLSTREAM_CACHE=$cache" "$0"; fi
  echo "dev/image-test.sh: runc needs root here, and sudo asks for a password" >&2
  exit 1
fi

mkdir -p "$cache/run"
dir=$(mktemp -d "$cache/run/image-test-XXXXXX")
prefix=$(basename "$dir")
mkdir "$dir/pipeline" "$dir/checkpoints"
chmod 755 "$dir"
chown 65532:65532 "$dir/checkpoints"
started=()
finish() {
  local name
  for name in "${started[@]}"; do
    runc --root "$dir/runc" kill "$name" KILL 2>/dev/null || continue
    for _ in $(seq 50); do
      runc --root "$dir/runc" delete "$name" 2>/dev/null && break
      sleep 0.1
    done
  done
  rm -rf "$dir"
}
trap finish EXIT
fail() {
  echo "dev/image-test.sh: $*" >&2
  tail -n 20 "$dir"/*.log >&2 2>/dev/null || true
  exit 1
}
free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

cat >"$dir/pipeline/pipeline.sql" <<'SQL'
CREATE TABLE numbers (id BIGINT, at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '1' SECOND)
  WITH ('connector' = 'datagen', 'rows-per-second' = '100');
CREATE TABLE counts (window_start TIMESTAMP(3), n BIGINT) WITH ('connector' = 'blackhole');
INSERT INTO counts SELECT window_start, count(*)
  FROM TABLE(TUMBLE(TABLE numbers, DESCRIPTOR(at), INTERVAL '1' SECOND)) GROUP BY window_start, window_end;
SQL

unpack() { # PROGRAM: its one layer, and what its configuration must say
  local program=$1 archive config layer
  archive=$("$here/image.sh" path "$program")
  [ -f "$archive" ] || fail "$archive is not there; run dev/image.sh build"
  mkdir -p "$dir/$program/rootfs"
  config=$(tar -xOf "$archive" manifest.json | jq -r '.[0].Config')
  layer=$(tar -xOf "$archive" manifest.json | jq -r '.[0].Layers[0]')
  tar -xOf "$archive" "$config" >"$dir/$program/image.json"
  tar -xOf "$archive" "$layer" | tar -x -C "$dir/$program/rootfs"
  [ "$(jq -r .config.User "$dir/$program/image.json")" = 65532:65532 ] || fail "$program: the image's user is not 65532"
  [ "$(jq -c .config.Entrypoint "$dir/$program/image.json")" = "[\"/usr/bin/$program\"]" ] || fail "$program: entry point"
  [ "$(jq -r '.config.Labels["org.opencontainers.image.title"]' "$dir/$program/image.json")" = "$program" ] || fail "$program: labels"
  jq -e '.components | length > 100' "$dir/$program/rootfs/usr/share/millstream/sbom.cdx.json" >/dev/null || fail "$program: SBOM"
  [ "$(stat -c %s "$archive")" -le $limit ] || fail "$program: the image is larger than $((limit >> 20)) MiB"
}

launch() { # NAME PROGRAM VARIABLE=VALUE…: as the image's user and entry point, with nothing writable but /tmp and the state
  local name=$1 program=$2
  shift 2
  mkdir -p "$dir/$name-state"
  chown 65532:65532 "$dir/$name-state"
  (cd "$dir/$program" && rm -f config.json && runc spec)
  jq --arg state "$dir/$name-state" --arg pipeline "$dir/pipeline" --arg checkpoints "$dir/checkpoints" \
    --slurpfile image "$dir/$program/image.json" '
    .process.terminal = false
    | .process.user = {uid: 65532, gid: 65532}
    | .process.args = $image[0].config.Entrypoint
    | .process.cwd = $image[0].config.WorkingDir
    | .process.env = $image[0].config.Env + $ARGS.positional
    | .process.noNewPrivileges = true
    | .process.capabilities = {bounding: [], effective: [], permitted: []}
    | .process.rlimits = []
    | .root = {path: "rootfs", readonly: true}
    | .mounts |= map(select(.type != "cgroup"))
    | .mounts += [
        {destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["nosuid", "nodev", "mode=1777"]},
        {destination: "/etc/millstream", type: "bind", source: $pipeline, options: ["bind", "ro"]},
        {destination: "/var/lib/millstream", type: "bind", source: $state, options: ["bind", "rw"]},
        {destination: "/checkpoints", type: "bind", source: $checkpoints, options: ["bind", "rw"]}]
    | .linux.namespaces |= map(select(.type != "network" and .type != "cgroup"))
    | .linux.resources = {}' --args "$@" <"$dir/$program/config.json" >"$dir/$program/config.new"
  mv "$dir/$program/config.new" "$dir/$program/config.json"
  # `<&-`: runc keeps nothing of this script's input. The parent shell waits for it below, for its exit code.
  runc --root "$dir/runc" run --bundle "$dir/$program" "$prefix-$name" >"$dir/$name.log" 2>&1 </dev/null &
  started+=("$prefix-$name")
  pids[$name]=$!
}
declare -A pids

answers() { # NAME URL: within 20 s
  local name=$1 url=$2
  for _ in $(seq 200); do
    ! curl -fs -o /dev/null --max-time 2 "$url" || return 0
    kill -0 "${pids[$name]}" 2>/dev/null || fail "$name has ended"
    sleep 0.1
  done
  fail "$name: $url does not answer: $(curl -s --max-time 2 "$url")"
}

confined() { # NAME PROGRAM: what the kernel says about the process
  local name=$1 program=$2 pid status
  pid=$(runc --root "$dir/runc" state "$prefix-$name" | jq .pid)
  status=$(cat "/proc/$pid/status")
  grep -q '^Uid:[[:space:]]*65532[[:space:]]' <<<"$status" || fail "$name: wrong user"
  grep -q '^NSpid:.*[[:space:]]1$' <<<"$status" || fail "$name: it is not process 1"
  grep -q '^CapEff:[[:space:]]*0*$' <<<"$status" || fail "$name: it has capabilities"
  grep -q '^NoNewPrivs:[[:space:]]*1$' <<<"$status" || fail "$name: it may gain privileges"
  [ "$(readlink "/proc/$pid/exe")" = "/usr/bin/$program" ] || fail "$name: process 1 is $(readlink "/proc/$pid/exe")"
  grep -q ' / / ro[, ]' "/proc/$pid/mountinfo" || grep -qE '^[0-9]+ [0-9]+ [0-9:]+ [^ ]+ / ro[, ]' "/proc/$pid/mountinfo" ||
    fail "$name: the root can be written"
}

ends() { # NAME: SIGTERM, then exit code 0 within 30 s
  local name=$1 code=0
  # A driver that drains dismisses its executors: one may have ended before it is told to.
  runc --root "$dir/runc" kill "$prefix-$name" TERM 2>/dev/null || true
  for _ in $(seq 300); do
    kill -0 "${pids[$name]}" 2>/dev/null || break
    sleep 0.1
  done
  ! kill -0 "${pids[$name]}" 2>/dev/null || fail "$name does not end within 30 s after SIGTERM"
  wait "${pids[$name]}" || code=$?
  [ "$code" = 0 ] || fail "$name: exit code $code after SIGTERM"
}

unpack millstream-driver
unpack millstream-executor
unpack millstream
control=$(free_port)
driver_http=$(free_port)
executor_http=$(free_port)
began=$(date +%s%N)
launch driver millstream-driver MILLSTREAM__DRIVER__FILE=/etc/millstream/pipeline.sql \
  MILLSTREAM__DRIVER__LISTEN=127.0.0.1:"$control" MILLSTREAM__DRIVER__HTTP=127.0.0.1:"$driver_http" \
  MILLSTREAM__DRIVER__STATE_DIR=/var/lib/millstream/driver MILLSTREAM__DRIVER__EXECUTORS=1 \
  MILLSTREAM__DRIVER__PARALLELISM=2 MILLSTREAM__CHECKPOINT__LOCATION=/checkpoints/test
launch executor millstream-executor MILLSTREAM__EXECUTOR__DRIVER=127.0.0.1:"$control" MILLSTREAM__EXECUTOR__ID=executor-0 \
  MILLSTREAM__EXECUTOR__SLOTS=2 MILLSTREAM__EXECUTOR__STATE_DIR=/var/lib/millstream/executor \
  MILLSTREAM__EXECUTOR__HTTP=127.0.0.1:"$executor_http"
for probe in livez startupz readyz metrics; do
  answers driver "http://127.0.0.1:$driver_http/$probe"
  answers executor "http://127.0.0.1:$executor_http/$probe"
done
echo "ready after $((($(date +%s%N) - began) / 1000000)) ms"
confined driver millstream-driver
confined executor millstream-executor
records() { curl -fs "http://127.0.0.1:$driver_http/metrics" | sed -n 's/^millstream_source_records_total \([0-9]*\).*/\1/p'; }
for _ in $(seq 100); do
  [ "$(records)" -lt 100 ] 2>/dev/null || break
  sleep 0.1
done
[ "$(records)" -ge 100 ] || fail "no records were processed"
ends driver
ends executor

# The command line needs nothing either.
launch cli millstream HOME=/tmp
wait "${pids[cli]}" || [ $? = 2 ] || fail "the command line does not start"
grep -q 'Usage: millstream' "$dir/cli.log" || fail "the command line does not explain itself"
echo "images run as 65532 on a read-only root, answer their probes and end with 0"
