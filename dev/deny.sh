#!/usr/bin/env bash
# cargo-deny: licences, duplicate and banned crates, sources, and known vulnerabilities where the database can be had.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${MILLSTREAM_CACHE:-$HOME/.cache/millstream}
deny=$cache/tools/bin/cargo-deny
command -v "$deny" >/dev/null || {
  echo "dev/deny.sh: cargo-deny is missing; run dev/setup.sh test" >&2
  exit 1
}
cargo fetch --quiet --locked # also what only other platforms need, which no build has fetched
"$deny" --offline --log-level error check bans licenses sources

# The advisory database is a git repository that is fetched at most once a day.
fetched=$cache/tools/advisories-fetched
export GIT_TERMINAL_PROMPT=0
if [ -n "$(find "$fetched" -mtime -1 2>/dev/null)" ] || timeout 60 "$deny" --log-level error fetch db >/dev/null 2>&1; then
  [ -n "$(find "$fetched" -mtime -1 2>/dev/null)" ] || touch "$fetched"
  "$deny" --offline --log-level error check advisories
else
  echo "advisories: skipped, the advisory database cannot be reached from here"
fi
