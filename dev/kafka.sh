#!/usr/bin/env bash
# One Apache Kafka broker (KRaft, combined mode) on the loopback address, for tests and measurements.
#
#   dev/kafka.sh fetch | start | stop | kill | restart | status
#
# `start` returns when the broker answers; `kill` is SIGKILL; data outlive both. Several brokers can run side by side,
# each with a port and a folder of its own. No topic is created by itself and no record is ever deleted by age.
# Environment: KAFKA_PORT (9092; the next port is the controller's), KAFKA_CONTROLLER_PORT, KAFKA_DIR (data, log and pid; a
# folder of the cache per port), KAFKA_HEAP (512m), KAFKA_OPTS (more JVM flags), MILLSTREAM_OWNER (the pid of a test),
# MILLSTREAM_CACHE (~/.cache/millstream).
# Messages: 1 MiB as usual; a topic may raise `max.message.bytes` up to 32 MiB.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${MILLSTREAM_CACHE:-$HOME/.cache/millstream}/kafka
port=${KAFKA_PORT:-9092}
controller=${KAFKA_CONTROLLER_PORT:-$((port + 1))}
dir=${KAFKA_DIR:-$cache/broker-$port}
pom_sum=$(cksum <"$here/kafka/pom.xml" | cut -d' ' -f1)
lib=$cache/lib-$pom_sum
classes=$cache/classes-$pom_sum.jsa
formatted=$cache/formatted-$pom_sum

# A zombie is gone: in a container nobody may collect it.
alive() { grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status"; }
running() { [ -f "$dir/pid" ] && alive "$(cat "$dir/pid")"; }

open_port() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

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

config() {
  cat <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/data
num.network.threads=2
num.io.threads=4
num.partitions=1
auto.create.topics.enable=false
log.retention.ms=-1
log.cleaner.dedupe.buffer.size=16777216
message.max.bytes=1048588
replica.fetch.max.bytes=33554432
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.max.timeout.ms=3600000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
END
}

jvm() { exec java -Dlog4j2.configurationFile="$here/kafka/log4j2.properties" "$@"; }

# Jars, the formatted data folder that every new broker is a copy of, and a class archive that halves the start.
fetch() {
  local tool
  for tool in java mvn; do
    command -v "$tool" >/dev/null || { echo "dev/kafka.sh: $tool is missing; run dev/setup.sh test" >&2; exit 1; }
  done
  [ ! -f "$classes" ] || return 0
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9 # two first starts at the same time
  [ ! -f "$classes" ] || return 0
  echo "fetching the Kafka broker (once)" >&2
  mvn -q -B -f "$here/kafka" dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$lib"
  local trial=$cache/trial
  rm -rf "$trial" "$formatted"
  KAFKA_DIR=$trial KAFKA_PORT=$((port + 20000 > 60000 ? port - 2000 : port + 20000)) KAFKA_CONTROLLER_PORT='' \
    KAFKA_OPTS="-XX:ArchiveClassesAtExit=$classes.new" "$0" first-start
  cp -r "$trial/formatted" "$formatted"
  rm -rf "$trial"
  mv "$classes.new" "$classes"
  exec 9>&-
}

launch() {
  mkdir -p "$dir"
  config >"$dir/server.properties"
  if [ ! -e "$dir/data/meta.properties" ]; then
    mkdir -p "$dir/data"
    cp -r "$formatted/." "$dir/data/"
  fi
  local heap=${KAFKA_HEAP:-512m}
  # shellcheck disable=SC2086 # KAFKA_OPTS is a list of flags
  (jvm -Xmx"$heap" -XX:+UseG1GC -XX:ParallelGCThreads=2 ${KAFKA_OPTS:-} -cp "$lib/*" kafka.Kafka "$dir/server.properties" \
    </dev/null >>"$dir/log" 2>&1 9>&-) &
  echo $! >"$dir/pid"
  guard
  for _ in $(seq 2400); do
    # The broker opens its port for clients last, when it is registered and unfenced.
    if open_port; then
      echo "kafka at 127.0.0.1:$port, pid $(cat "$dir/pid")"
      return
    fi
    running || break
    sleep 0.025
  done
  echo "dev/kafka.sh: no broker on port $port; the end of $dir/log:" >&2
  tail -20 "$dir/log" >&2
  exit 1
}

start() {
  if running; then
    echo "kafka already at 127.0.0.1:$port, pid $(cat "$dir/pid")"
    return
  fi
  if open_port; then
    echo "dev/kafka.sh: another process listens on port $port; set KAFKA_PORT" >&2
    exit 1
  fi
  fetch
  KAFKA_OPTS="-XX:SharedArchiveFile=$classes -Xshare:auto -Xlog:cds=off -Xlog:cds+dynamic=off ${KAFKA_OPTS:-}"
  launch
}

# Sends the signal and waits until process and port are gone, so that a start may follow at once.
end() {
  local pid
  [ -f "$dir/pid" ] || return 0
  pid=$(cat "$dir/pid")
  rm -f "$dir/pid"
  kill "-$1" "$pid" 2>/dev/null || return 0
  for _ in $(seq 1200); do
    { alive "$pid" || open_port; } || return 0
    sleep 0.025
  done
  kill -KILL "$pid" 2>/dev/null || true
}

case ${1:-} in
fetch | start) "$1" ;;
first-start) # part of fetch: formats a data folder the long way, and writes the class archive at the exit
  mkdir -p "$dir"
  config >"$dir/server.properties"
  (jvm -cp "$lib/*" kafka.tools.StorageTool format -t MkU3OEVBNTcwNTJENDM2Qg -c "$dir/server.properties" >"$dir/log" 2>&1) ||
    { cat "$dir/log" >&2; exit 1; }
  cp -r "$dir/data" "$dir/formatted"
  launch >&2
  end TERM
  ;;
stop) end TERM ;;
kill) end KILL ;;
restart)
  end TERM
  start
  ;;
status) if running; then echo "127.0.0.1:$port, pid $(cat "$dir/pid")"; else
  echo stopped
  exit 1
fi ;;
*)
  sed -n '2,11s/^# \{0,1\}//p' "$0"
  exit 2
  ;;
esac
