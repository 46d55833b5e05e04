#!/usr/bin/env bash
# State larger than memory: Nexmark q9 and q20 with little memory, with as much as they like, and in DuckDB, must give the same sums.
#
#   dev/larger-than-memory.sh [EVENTS [MEMORY]]      by default 20000000 events and state.memory = 256mb
#
# Prints seconds and sums of each run; ends with 1 if any differ. Needs the built programs, about 10 GiB of memory for the runs without a bound,
# and some minutes. Environment: MILLSTREAM_BINARIES (target/release), TMPDIR.
set -euo pipefail

events=${1:-20000000}
memory=${2:-256mb}
here=$(cd "$(dirname "$0")" && pwd)
millstream=${MILLSTREAM_BINARIES:-$here/../target/release}/millstream
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# Tables and views of an example, before its sink; then a sink of one row and the sums over what the query gives.
sums() { # QUERY COLUMN…
  local query=$1 column list=
  shift
  sed "/^CREATE TABLE result/,\$d; s/'number-of-rows' = '[0-9]*'/'number-of-rows' = '$events'/" "$here/../examples/nexmark/$query.sql"
  echo "CREATE TABLE sums (\`rows\` BIGINT $(for column in "$@"; do echo ", \`$column\` DECIMAL(38, 0)"; done)) WITH ('connector' = 'print');"
  for column in "$@"; do list+=", sum(CAST($column AS DECIMAL(28, 0)))"; done
  echo "INSERT INTO sums SELECT count(*)$list FROM ("
  sed '1,/^INSERT INTO result/d; s/;[[:space:]]*$//' "$here/../examples/nexmark/$query.sql"
  echo ');'
}

last() { # the row that stands in the end, its numbers in the order of the columns
  jq -rs '[.[] | select(.op // "+I" | startswith("+"))] | last | del(.op) | [.[]] | map(tostring) | join(" ")'
}

cat >"$dir/rows.sql" <<SQL
$(sed "/^CREATE TABLE result/,\$d; s/'number-of-rows' = '[0-9]*'/'number-of-rows' = '$events'/" "$here/../examples/nexmark/q20.sql")
CREATE TABLE auctions (id BIGINT, seller BIGINT, category BIGINT, begun TIMESTAMP(3), expires TIMESTAMP(3), text INT)
WITH ('connector' = 'filesystem', 'path' = '$dir/auctions', 'format' = 'parquet');
CREATE TABLE bids (auction BIGINT, bidder BIGINT, price BIGINT, at TIMESTAMP(3), text INT)
WITH ('connector' = 'filesystem', 'path' = '$dir/bids', 'format' = 'parquet');
INSERT INTO auctions SELECT id, seller, category, \`dateTime\`, expires, char_length(extra) FROM auction;
INSERT INTO bids SELECT auction, bidder, price, \`dateTime\`, char_length(extra) FROM bid;
SQL
"$millstream" run -f "$dir/rows.sql" --conf pipeline.name=rows >"$dir/rows.log" 2>&1 || {
  cat "$dir/rows.log" >&2
  exit 1
}
judge=$("$here/duckdb.sh" python)
wrong=0
for query in q9 q20; do
  case $query in
  q9) columns=(auction bidder price seller "char_length(bid_extra)") ;;
  q20) columns=(auction bidder price seller "char_length(auction_extra)") ;;
  esac
  sums "$query" "${columns[@]}" >"$dir/$query.sql"
  expected=$("$judge" - "$dir" "$query" <<'PYTHON'
import sys, duckdb
folder, query = sys.argv[1:]
db = duckdb.connect()
db.execute("SET threads = 2")
a, b = (f"read_parquet('{folder}/{t}/**/*.parquet')" for t in ("auctions", "bids"))
text = {
    "q9": f"""SELECT count(*), sum(auction), sum(bidder), sum(price), sum(seller), sum(text) FROM (
        SELECT b.auction, b.bidder, b.price, a.seller, b.text FROM {a} a JOIN {b} b ON a.id = b.auction AND b.at BETWEEN a.begun AND a.expires
        QUALIFY row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.at, b.bidder, b.text) = 1)""",
    "q20": f"""SELECT count(*), sum(b.auction), sum(b.bidder), sum(b.price), sum(a.seller), sum(a.text)
        FROM {b} b JOIN {a} a ON a.id = b.auction WHERE a.category = 10""",
}[query]
print(*map(int, db.execute(text).fetchone()))
PYTHON
  )
  echo "$query  DuckDB               $expected"
  for bound in 20gb "$memory"; do
    started=$(date +%s%N)
    found=$("$millstream" run -f "$dir/$query.sql" --conf state.memory="$bound" --conf parallelism=2 2>"$dir/$query.log" | last) || {
      cat "$dir/$query.log" >&2
      exit 1
    }
    tenths=$((($(date +%s%N) - started) / 100000000))
    printf '%-4s %-7s %6s s       %s\n' "$query" "$bound" "$((tenths / 10)).$((tenths % 10))" "$found"
    [ "$found" = "$expected" ] || wrong=1
  done
done
[ "$wrong" = 0 ] && echo "all the same" || {
  echo "not the same" >&2
  exit 1
}
