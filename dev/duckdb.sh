#!/usr/bin/env bash
# DuckDB (MIT), an engine that shares nothing with ours, as the judge of results.
#
#   dev/duckdb.sh build | python | nexmark EVENTS QUERIES OUT
#
# `build` installs it once from PyPI into a virtual environment of the cache; `python` prints that environment's python.
# `nexmark` loads EVENTS (JSON lines as `millstream generate nexmark` writes them), answers every QUERIES/*.sql over the
# tables person, auction, bid and side_input, and writes OUT/NAME.json (one row per line) for each.
# Environment: MILLSTREAM_CACHE (~/.cache/millstream), DUCKDB_THREADS (2).
set -euo pipefail

version=1.4.5
here=$(cd "$(dirname "$0")" && pwd)
cache=${MILLSTREAM_CACHE:-$HOME/.cache/millstream}
venv=$cache/tools/duckdb-$version
python=$venv/bin/python

build() {
  [ ! -e "$venv/complete" ] || return 0
  mkdir -p "$cache/tools"
  # One build at a time, whoever asks.
  (
    flock 9
    [ ! -e "$venv/complete" ] || exit 0
    echo "installing duckdb $version" >&2
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$python" -m pip install -q --disable-pip-version-check --only-binary :all: "duckdb==$version" >&2
    touch "$venv/complete"
  ) 9>"$cache/tools/duckdb.lock"
}

case ${1:-} in
build) build ;;
python)
  build
  echo "$python"
  ;;
nexmark)
  build
  exec "$python" "$here/nexmark_in_duckdb.py" "${2:?the file of events}" "${3:?the folder of queries}" "${4:?the folder for results}"
  ;;
*)
  sed -n '2,10s/^# \{0,1\}//p' "$0"
  exit 2
  ;;
esac
