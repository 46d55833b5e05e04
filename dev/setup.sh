#!/usr/bin/env bash
# Installs what building and testing need, with apt when that is possible, otherwise prints the one command to run.
#
#   dev/setup.sh build | test
#
# `build` is a linker, a C++ compiler and the libraries of RocksDB and librdkafka; `test` adds Java and Maven (the Kafka
# broker), Go (the S3 server), Python (DuckDB, which judges results) and cargo-deny. Runs in a fraction of a second when
# nothing is missing.
# Environment: MILLSTREAM_CACHE (~/.cache/millstream; the test servers and cargo-deny are kept there).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${MILLSTREAM_CACHE:-$HOME/.cache/millstream}
set=${1:-}
case $set in build | test) ;; *)
  sed -n '2,9s/^# \{0,1\}//p' "$0"
  exit 2
  ;;
esac

packages=()
have() { command -v "$1" >/dev/null; }
need() { # TOOL PACKAGE
  have "$1" || packages+=("$2")
}
need_library() { # PKG-CONFIG-NAME PACKAGE
  { have pkg-config && pkg-config --exists "$1"; } || packages+=("$2")
}
candidate() { # PACKAGE: the version that apt would install, or nothing
  apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: *//p' | grep -v '(none)' || true
}

want_build() {
  need clang clang
  need mold mold
  need cmake cmake
  need make make
  need git git
  need pkg-config pkg-config
  need_library openssl libssl-dev
  need_library zlib zlib1g-dev
  need_library libzstd libzstd-dev
  compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || compgen -G '/usr/lib*/libclang*.so*' >/dev/null ||
    packages+=(libclang-dev)
}

java_major() { java -version 2>&1 | sed -n '1s/.*version "\([0-9]*\).*/\1/p'; }

want_test() {
  need curl curl
  need jq jq
  need mvn maven
  local major=''
  have java && major=$(java_major)
  if [ "${major:-0}" -lt 17 ]; then
    local java=openjdk-17-jre-headless newer
    for newer in openjdk-21-jre-headless openjdk-25-jre-headless; do
      [ -n "$(candidate openjdk-17-jre-headless)" ] || [ -z "$(candidate $newer)" ] || java=$newer
    done
    packages+=("$java")
  fi
  [ -x "$("$here/s3.sh" path)" ] || need go golang-go
  need python3 python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
}

install() {
  [ ${#packages[@]} -gt 0 ] || return 0
  local update=(apt-get update -q) install=(apt-get install -y -q --no-install-recommends "${packages[@]}") root=()
  if [ "$(id -u)" != 0 ]; then root=(sudo); fi
  if ! have apt-get; then
    echo "millstream needs these, under their Debian names: ${packages[*]}" >&2
    echo "apt is not here: install them with this system's package manager, then run the same command again" >&2
    exit 1
  fi
  if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then
    echo "installing ${packages[*]}" >&2
    "${root[@]}" "${update[@]}" >&2
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" >&2
  else
    echo "millstream needs a few packages; run this, then the same command again:" >&2
    echo "  sudo ${update[*]} && sudo ${install[*]}" >&2
    exit 1
  fi
}

rust() {
  if ! have cargo; then
    echo "cargo is missing: install Rust with rustup (https://rustup.rs), then run the same command again" >&2
    exit 1
  fi
  [ "$set" = test ] || return 0
  local component
  for component in clippy fmt; do
    have "cargo-$component" || {
      echo "cargo $component is missing; run: rustup component add clippy rustfmt" >&2
      exit 1
    }
  done
}

cargo_deny() {
  [ ! -x "$cache/tools/bin/cargo-deny" ] || return 0
  echo "building cargo-deny (once, a few minutes)" >&2
  CARGO_TARGET_DIR=$cache/tools/target cargo install -q --locked --root "$cache/tools" cargo-deny
  rm -rf "$cache/tools/target"
}

"want_$set"
[ "$set" = build ] || want_build
install
rust
if [ "$set" = test ]; then
  "$here/kafka.sh" fetch
  "$here/s3.sh" build
  "$here/duckdb.sh" build
  cargo_deny
fi
