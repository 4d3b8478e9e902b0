#!/bin/bash
# Packs a built gateway as a Debian package; nothing is compiled. Needs debhelper and cargo (the licences of the crates built in).
# Usage: deploy/deb/build.sh [BINARY [OUTDIR]]      # target/optimised/ndxp-gateway (deploy/optimise.sh), target/deb
# The version is that of Cargo.toml; deploy/deb/debian/changelog must begin with it.
#   DEB_COMPRESSION   options of dpkg-deb, such as -Zgzip
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD binary=$(realpath "${1:-target/optimised/ndxp-gateway}") out=${2:-target/deb}
mkdir -p "$out" && out=$(realpath "$out")
release=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
if [ "$("$binary" --version)" != "ndxp-gateway $release" ]; then
  echo "$binary is not version $release of Cargo.toml" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/ndxp-gateway" && cd "$work/ndxp-gateway"
cp -r "$root/deploy/deb/debian" debian
cp "$root"/deploy/systemd/ndxp-gateway{.service,.socket,-witness.service} debian/
packed=$(sed -n '1s/.*(\(.*\)).*/\1/p' debian/changelog)
if [ "$packed" != "$release" ]; then
  echo "deploy/deb/debian/changelog begins with $packed, not with $release of Cargo.toml" >&2
  exit 1
fi

share=files/usr/share doc=files/usr/share/doc/ndxp-gateway
mkdir -p files/usr/bin files/etc/ndxp/pki man "$doc" "$share"/{ndxp-gateway,bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
install -m 0755 "$binary" files/usr/bin/ndxp-gateway
install -m 0644 "$root/deploy/deb/environment" files/etc/ndxp/environment
"$binary" man man
"$binary" completions bash > "$share/bash-completion/completions/ndxp-gateway"
"$binary" completions zsh > "$share/zsh/vendor-completions/_ndxp-gateway"
"$binary" completions fish > "$share/fish/vendor_completions.d/ndxp-gateway.fish"
# What production takes beside the program: further contracts and hubs, alerts and dashboard, protos for those who call.
cp -r "$root/seeds/contracts" "$root/proto" "$root/deploy/prometheus" "$root/deploy/grafana" "$share/ndxp-gateway/"
mkdir "$share/ndxp-gateway/hubs" && cp "$root/seeds/hubs/ndop-agent.toml" "$share/ndxp-gateway/hubs/"
rm -f "$share/ndxp-gateway/proto/baseline.binpb" "$share/ndxp-gateway/prometheus/ndxp.rules.test.yml"
cp "$root/README.md" "$doc/" && cp -r "$root/docs" "$doc/docs"
"$root/deploy/deb/third_party.py" "$root" > "$doc/third-party.txt"
find files -type f ! -path 'files/usr/bin/*' -exec chmod 0644 {} +

DEB_COMPRESSION=${DEB_COMPRESSION:-} debian/rules binary > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
mv "$work"/*.deb "$out/"
ls "$out/ndxp-gateway_${release}_$(dpkg --print-architecture).deb"
