#!/bin/bash
# Builds the container image of a built gateway; nothing is compiled, no registry is asked. Needs buildah.
# Usage: deploy/container/build.sh [BINARY [OUTDIR]]      # target/optimised/ndxp-gateway, target/container
# Writes OUTDIR/rootfs, and OUTDIR/ndxp-gateway.oci.tar, which `podman load`, `skopeo copy oci-archive:` and containerd take.
#   ROOTFS_ONLY=1   lays the root alone
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD binary=$(realpath "${1:-target/optimised/ndxp-gateway}") out=${2:-target/container}
mkdir -p "$out" && out=$(realpath "$out") && cd "$out"
rm -rf rootfs ndxp-gateway.oci.tar
mkdir -p rootfs/{usr/bin,etc/ndxp,var/lib/ndxp,proc,sys,dev,tmp}
install -m 0755 "$binary" rootfs/usr/bin/ndxp-gateway
# What the program loads, at the paths at which its own loader looks; the loader itself is the one with an absolute path.
ldd "$binary" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) .*/\1/p' | while read -r library; do
  mkdir -p "rootfs$(dirname "$library")"
  install -m 0755 "$(realpath "$library")" "rootfs$library"
done
echo 'ndxp:x:64110:64110:NDXP gateway:/var/lib/ndxp:/usr/sbin/nologin' > rootfs/etc/passwd
echo 'ndxp:x:64110:' > rootfs/etc/group
printf 'hosts: files dns\npasswd: files\ngroup: files\n' > rootfs/etc/nsswitch.conf
chmod 1777 rootfs/tmp && chmod 0700 rootfs/var/lib/ndxp
[ -n "${ROOTFS_ONLY:-}" ] && exit
cp "$root/deploy/container/Containerfile" .
version=$("$binary" --version | cut -d' ' -f2)
# Storage of its own, without overlay and namespaces: it works as root on any machine, in CI as well.
storage=(--root "$out/storage" --runroot "$out/run" --storage-driver vfs)
buildah "${storage[@]}" bud --quiet --isolation chroot --timestamp 0 --label org.opencontainers.image.version="$version" -t "ndxp-gateway:$version" -f Containerfile . > image-id
buildah "${storage[@]}" push --quiet "ndxp-gateway:$version" "oci-archive:$out/ndxp-gateway.oci.tar:ndxp-gateway:$version"
rm -rf storage run Containerfile
ls -l "$out/ndxp-gateway.oci.tar"
