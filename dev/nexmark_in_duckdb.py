"""Answers Nexmark's queries with DuckDB; see dev/duckdb.sh."""

import os
import pathlib
import sys

import duckdb

COLUMNS = """{
  event_type: 'INTEGER',
  person: 'STRUCT(id BIGINT, name VARCHAR, "emailAddress" VARCHAR, "creditCard" VARCHAR, city VARCHAR, state VARCHAR,
    "dateTime" TIMESTAMP, extra VARCHAR)',
  auction: 'STRUCT(id BIGINT, "itemName" VARCHAR, description VARCHAR, "initialBid" BIGINT, reserve BIGINT,
    "dateTime" TIMESTAMP, expires TIMESTAMP, seller BIGINT, category BIGINT, extra VARCHAR)',
  bid: 'STRUCT(auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, url VARCHAR, "dateTime" TIMESTAMP,
    extra VARCHAR)'
}"""


def main(events, queries, out):
    database = duckdb.connect()
    database.execute(f"SET threads = {int(os.environ.get('DUCKDB_THREADS', '2'))}")
    database.execute(
        f"CREATE TABLE events AS SELECT * FROM read_json('{events}', format = 'newline_delimited', columns = {COLUMNS})"
    )
    for kind, name in enumerate(["person", "auction", "bid"]):
        database.execute(f"CREATE TABLE {name} AS SELECT unnest({name}) FROM events WHERE event_type = {kind}")
    database.execute("CREATE TABLE side_input AS SELECT i AS key, 'side ' || i AS value FROM range(10000) t(i)")
    for query in sorted(pathlib.Path(queries).glob("*.sql")):
        target = pathlib.Path(out) / (query.stem + ".json")
        text = query.read_text().strip().rstrip(";")
        try:
            database.execute(f"COPY (\n{text}\n) TO '{target}' (FORMAT JSON)")
        except duckdb.Error as error:
            sys.exit(f"{query}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
