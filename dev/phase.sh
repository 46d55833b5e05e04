#!/usr/bin/env bash
# Runs a command as a named phase and says how long it took: dev/phase.sh NAME COMMAND…
set -uo pipefail
name=$1
shift
echo "== $name"
started=$(date +%s%N)
"$@"
status=$?
tenths=$((($(date +%s%N) - started) / 100000000))
outcome=ok
[ $status = 0 ] || outcome="FAILED ($status)"
echo "== $name: $outcome, $((tenths / 10)).$((tenths % 10)) s"
exit $status
