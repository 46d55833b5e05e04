#!/usr/bin/env bash
# Builds images of programs that are already built, from scratch, without a registry and without a container engine.
#
#   dev/image.sh build [PROGRAM…]    default: millstream-driver millstream-executor millstream
#   dev/image.sh s3                  an image of the S3 server that the overlay `dev` uses
#   dev/image.sh path PROGRAM        where the archive is
#
# The archives are in docker's format, for `ctr -n k8s.io images import FILE`, `kind load image-archive FILE`, `podman load`.
# Environment: MILLSTREAM_BINARIES (folder of the binaries; target/release of this tree), MILLSTREAM_CACHE
# (~/.cache/millstream), MILLSTREAM_IMAGE_TAG (the version of the workspace).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
cache=${MILLSTREAM_CACHE:-$HOME/.cache/millstream}
binaries=${MILLSTREAM_BINARIES:-${CARGO_TARGET_DIR:-$root/target}/release}
images=$cache/images
limit=$((120 * 1024 * 1024))
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -1)
tag=${MILLSTREAM_IMAGE_TAG:-$version}
revision=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)
# The storage of its own is removed with the folder; vfs and chroot need no privileges of a kernel.
storage=(--root "$cache/images/storage" --runroot "$cache/images/run" --storage-driver vfs)

archive() { echo "$images/$1.tar"; }

# NAME ROOTFS ENTRYPOINT DESCRIPTION LICENCE
make_image() {
  local name=$1 rootfs=$2 entrypoint=$3 description=$4 licence=$5 container
  container=$(buildah "${storage[@]}" from scratch)
  buildah "${storage[@]}" copy -q "$container" "$rootfs" / >/dev/null
  buildah "${storage[@]}" config \
    --user 65532:65532 --workingdir /var/lib/millstream --entrypoint "[\"$entrypoint\"]" --cmd '' \
    --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    --label "org.opencontainers.image.title=$name" \
    --label "org.opencontainers.image.description=$description" \
    --label "org.opencontainers.image.licenses=$licence" \
    --label "org.opencontainers.image.version=$tag" \
    --label "org.opencontainers.image.revision=$revision" "$container"
  buildah "${storage[@]}" commit -q --rm "$container" "$name:$tag" >/dev/null
  rm -f "$(archive "$name")"
  buildah "${storage[@]}" push -q "$name:$tag" "docker-archive:$(archive "$name"):$name:$tag"
}

build() {
  local program=$1 rootfs bytes
  if [ ! -x "$binaries/$program" ]; then
    echo "dev/image.sh: $binaries/$program is not there; run make build, or set MILLSTREAM_BINARIES" >&2
    exit 1
  fi
  rootfs=$(mktemp -d "$images/rootfs-XXXXXX")
  "$root/docker/rootfs.sh" "$binaries/$program" "$rootfs"
  bytes=$(du -sb "$rootfs" | cut -f1)
  if [ "$bytes" -gt "$limit" ]; then
    echo "dev/image.sh: $program takes $((bytes >> 20)) MiB, more than $((limit >> 20))" >&2
    exit 1
  fi
  make_image "$program" "$rootfs" "/usr/bin/$program" 'Millstream: streaming SQL, exactly once' Apache-2.0
  rm -rf "$rootfs"
  echo "$(archive "$program"): $program:$tag, $((bytes >> 20)) MiB"
}

# The server keeps a bucket as a folder of /data; the overlay mounts volumes there.
s3() {
  local rootfs program
  "$here/s3.sh" build
  program=$("$here/s3.sh" path)
  rootfs=$(mktemp -d "$images/rootfs-XXXXXX")
  mkdir -p "$rootfs"/{usr/bin,data,tmp,var/lib/millstream,etc/ssl/certs}
  cp -L /etc/ssl/certs/ca-certificates.crt "$rootfs/etc/ssl/certs/"
  install -m 0755 "$program" "$rootfs/usr/bin/versitygw"
  local library
  for library in $(ldd "$program" 2>/dev/null | sed -n 's/^.*[[:space:]]\(\/[^ ]*\) (0x[0-9a-f]*)$/\1/p'); do
    mkdir -p "$rootfs$(dirname "$library")"
    cp -L "$library" "$rootfs$library"
  done
  make_image millstream-dev-s3 "$rootfs" /usr/bin/versitygw 'An S3 server for trying Millstream out' Apache-2.0
  rm -rf "$rootfs"
  echo "$(archive millstream-dev-s3): millstream-dev-s3:$tag"
}

have() {
  command -v buildah >/dev/null || {
    echo "dev/image.sh: buildah is missing; run dev/setup.sh image" >&2
    exit 1
  }
  mkdir -p "$images"
}

case ${1:-} in
build)
  shift
  have
  [ $# -gt 0 ] || set -- millstream-driver millstream-executor millstream
  for program in "$@"; do build "$program"; done
  rm -rf "$images/storage" "$images/run"
  ;;
s3)
  have
  s3
  rm -rf "$images/storage" "$images/run"
  ;;
path) archive "${2:?a program}" ;;
*)
  sed -n '2,10s/^# \{0,1\}//p' "$0"
  exit 2
  ;;
esac
