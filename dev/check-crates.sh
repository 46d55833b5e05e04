#!/usr/bin/env bash
# The arrows between our crates point one way, and each big dependency has one owner. See docs/architecture.md.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo metadata --no-deps --format-version 1 --locked | jq -r '
  # Which of our crates each one may use; `plan` (ids, plans, ranges) is for everybody.
  { plan: [],
    state: [],
    dataflow: ["state"],
    formats: ["dataflow"],
    connectors: ["dataflow", "formats"],
    sql: ["dataflow", "formats", "connectors"],
    protocol: [],
    driver: ["state", "dataflow", "formats", "connectors", "sql", "protocol"],
    executor: ["state", "dataflow", "formats", "connectors", "sql", "protocol"],
    cli: ["state", "dataflow", "formats", "connectors", "sql", "protocol", "driver", "executor"]
  } as $may
  # Dependencies that only some crates may see.
  | { rocksdb: ["state"],
      rdkafka: ["connectors"],
      "rdkafka-sys": ["connectors"],
      tonic: ["protocol", "driver", "executor"],
      "tonic-prost": ["protocol"],
      prost: ["protocol"],
      kube: ["driver"],
      anyhow: ["cli", "driver", "executor"]
    } as $owners
  # Crates that stay pure: no runtime, no network, no disk.
  | ["plan", "dataflow"] as $pure
  | ["tokio", "tokio-stream", "tokio-util", "tonic", "axum", "object_store", "rocksdb", "rdkafka"] as $io
  | .packages[]
  | (.name | ltrimstr("millstream-")) as $crate
  | select($crate != "tests") # the end-to-end tests look at everything from outside
  | if $may[$crate] == null then "\(.name): unknown crate; give it its place in dev/check-crates.sh" else
      .dependencies[].name as $name
      | ($name | ltrimstr("millstream-")) as $other
      | if ($name | startswith("millstream-")) then
          if $name == "millstream-tests" or $other == "plan" or ($may[$crate] | index($other)) then empty
          else "\(.name) must not use \($name)" end
        elif $owners[$name] != null and ($owners[$name] | index($crate) | not) then
          "\(.name) must not use \($name): only \($owners[$name] | join(", ")) may"
        elif ($pure | index($crate)) and ($io | index($name)) then
          "\(.name) must not use \($name): it does no I/O"
        else empty end
    end' | sort -u | {
  wrong=$(cat)
  [ -z "$wrong" ] || {
    echo "$wrong" >&2
    exit 1
  }
}

# A tracked file that names a folder of somebody's machine works nowhere else.
if found=$(git grep -nIE '(^|[^[:alnum:]_.])/(root|home|Users|work)/[[:alnum:]_.]' -- . ':!dev/check-crates.sh' ':!docker' ':!k8s'); then
  echo "absolute paths of one machine:" >&2
  echo "$found" >&2
  exit 1
fi
