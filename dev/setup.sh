#!/usr/bin/env bash
# Installs what building and testing need, with apt when that is possible, otherwise prints the one command to run.
#
#   dev/setup.sh build | test | image | kubernetes
#
# `build` is a linker, a C++ compiler and the libraries of RocksDB and librdkafka; `test` adds Java and Maven (the Kafka
# broker), Go (the S3 server), Python (DuckDB, which judges results) and cargo-deny. `image` is what dev/image.sh and dev/image-test.sh
# need (buildah, runc), `kubernetes` what dev/k8s-check.sh needs. Runs in a fraction of a second when nothing is missing.
# Environment: MILLSTREAM_CACHE (~/.cache/millstream; the test servers and cargo-deny are kept there).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${MILLSTREAM_CACHE:-$HOME/.cache/millstream}
set=${1:-}
case $set in build | test | image | kubernetes) ;; *)
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

want_image() {
  need buildah buildah
  need runc runc
  need jq jq
  need curl curl
  need python3 python3
  need strip binutils
}

want_kubernetes() {
  need python3 python3
  python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
  renders || need go golang-go
}

# Several patches in one file need kustomize 5.1 or newer, which kubectl has from 1.31 on.
renders() {
  [ -x "$cache/tools/kubernetes/bin/kustomize" ] || kubectl kustomize "$here/../k8s/overlays/dev" >/dev/null 2>&1
}

# promtool and amtool are taken out of Debian's packages: installing those would start two servers.
prometheus_tools() {
  local tools=$cache/tools/kubernetes package
  [ ! -x "$tools/bin/promtool" ] || [ ! -x "$tools/bin/amtool" ] || return 0
  echo "fetching promtool and amtool" >&2
  mkdir -p "$tools/bin" "$tools/deb"
  for package in prometheus prometheus-alertmanager; do
    [ -n "$(candidate $package)" ] || { packages=(); refresh; }
    (cd "$tools/deb" && apt-get download -q "$package" >/dev/null 2>&1 && dpkg-deb -x "$package"_*.deb "$package")
  done
  mv "$tools/deb/prometheus/usr/bin/promtool" "$tools/deb/prometheus-alertmanager/usr/bin/amtool" "$tools/bin/"
  rm -rf "$tools/deb"
}

refresh() {
  local root=()
  if [ "$(id -u)" != 0 ]; then root=(sudo); fi
  "${root[@]}" apt-get update -q >&2
}

python_tools() {
  local tools=$cache/tools/kubernetes wanted
  wanted=$(sha256sum "$here/k8s-requirements.txt")
  [ "$(cat "$tools/venv/.wanted" 2>/dev/null)" != "$wanted" ] || return 0
  echo "installing the checkers of manifests (once, about a minute)" >&2
  rm -rf "$tools/venv"
  mkdir -p "$tools"
  python3 -m venv "$tools/venv"
  "$tools/venv/bin/pip" install -q --disable-pip-version-check -r "$here/k8s-requirements.txt" >&2
  echo "$wanted" >"$tools/venv/.wanted"
}

kustomize() {
  local tools=$cache/tools/kubernetes
  ! renders || return 0
  echo "building kustomize (once, a minute)" >&2
  GOBIN=$tools/bin "$("$here/go.sh")" install -p 2 -trimpath sigs.k8s.io/kustomize/kustomize/v5@v5.5.0
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
[ "$set" != test ] || want_build
install
case $set in
image) exit 0 ;;
kubernetes)
  prometheus_tools
  python_tools
  kustomize
  exit 0
  ;;
esac
rust
if [ "$set" = test ]; then
  "$here/kafka.sh" fetch
  "$here/s3.sh" build
  "$here/duckdb.sh" build
  cargo_deny
fi
