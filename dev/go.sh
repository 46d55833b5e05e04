#!/usr/bin/env bash
# Prints the path of a Go that can build today's modules: the system's own from 1.21 on (it fetches what a module asks for by
# itself), else one that is fetched like a module.
set -euo pipefail

version=go1.26.8
if ! command -v go >/dev/null; then
  echo "dev/go.sh: Go is missing; run dev/setup.sh" >&2
  exit 1
fi
case $(go env GOVERSION) in go1.1[0-9]* | go1.20*)
  toolchain=golang.org/toolchain@v0.0.1-$version.$(go env GOOS)-$(go env GOARCH)
  toolchain=$(go mod download -json "$toolchain" | sed -n 's/^.*"Dir": "\(.*\)",*$/\1/p')
  chmod -R u+x "$toolchain/bin" "$toolchain/pkg/tool"
  echo "$toolchain/bin/go"
  ;;
*) command -v go ;;
esac
