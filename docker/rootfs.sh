#!/usr/bin/env bash
# Makes the root file system of an image: one program, the shared libraries that it names, certificates, a user.
#
#   docker/rootfs.sh PROGRAM FOLDER     PROGRAM is a path to a built binary, FOLDER must be empty or absent
#
# The Containerfile and dev/image.sh both call it, so that an image is the same wherever it is built.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
program=${1:?the path of a program}
root=${2:?the folder to make}
name=$(basename "$program")
if [ -e "$root" ] && [ -n "$(ls -A "$root")" ]; then
  echo "docker/rootfs.sh: $root is not empty" >&2
  exit 1
fi

mkdir -p "$root"/{usr/bin,etc/ssl/certs,etc/millstream,usr/share/millstream,var/lib/millstream,tmp,proc,sys,dev}
chmod 1777 "$root/tmp"
install -m 0755 "$program" "$root/usr/bin/$name"
strip --strip-all "$root/usr/bin/$name"
ln -s "$name" "$root/usr/bin/entrypoint"

# "libz.so.1 => /lib/…/libz.so.1 (0x…)" and, for the loader, "/lib64/ld-linux-x86-64.so.2 (0x…)".
libraries=$(ldd "$program" | sed -n 's/^.*[[:space:]]\(\/[^ ]*\) (0x[0-9a-f]*)$/\1/p')
if ldd "$program" | grep -q 'not found'; then
  echo "docker/rootfs.sh: $program needs libraries that are not here:" >&2
  ldd "$program" | grep 'not found' >&2
  exit 1
fi
for library in $libraries; do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
  strip --strip-unneeded "$root$library"
done

cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
echo 'millstream:x:65532:65532:millstream:/var/lib/millstream:/sbin/nologin' >"$root/etc/passwd"
echo 'millstream:x:65532:' >"$root/etc/group"
# shellcheck disable=SC2086 # one path per word
python3 "$here/sbom.py" "$name" "$here/../Cargo.lock" $libraries >"$root/usr/share/millstream/sbom.cdx.json"
if [ "$(id -u)" = 0 ]; then chown 65532:65532 "$root/var/lib/millstream"; fi
# Equal inputs give equal layers.
find "$root" -exec touch -h -d "@${SOURCE_DATE_EPOCH:-0}" {} +
