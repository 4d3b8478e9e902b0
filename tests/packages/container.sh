#!/bin/bash
# The container image and the Kubernetes manifests: the image is built by buildah and looked into; the manifests are valid for Kubernetes'
# own schemas, fit one another and the image; and the pod that they describe is run (pod.py), by bubblewrap: no cluster is here, and podman's
# runtime refuses machines with both kinds of cgroups. Each step prints what it proved. Usage: tests/packages/container.sh [BINARY]
# Needs buildah, bubblewrap, and target/kubernetes with kubernetes-validate (.ci/run installs them). Loopback only.
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=$(realpath "${1:-target/debug/ndxp-gateway}") dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# Others may go through: the pod's user does.
chmod 0755 "$dir"
strip -o "$dir/ndxp-gateway" "$binary"
deploy/container/build.sh "$dir/ndxp-gateway" "$dir/image" > "$dir/build.log" 2>&1 || { cat "$dir/build.log"; exit 1; }
target/kubernetes/bin/kubernetes-validate --strict --quiet deploy/kubernetes/*.yaml
printf '  ok (%s s): the image is built; the manifests are valid for Kubernetes %s\n' $SECONDS \
  "$(target/kubernetes/bin/pip show kubernetes-validate | sed -n 's/^Version: //p')"
# A network of its own, with nothing but loopback.
unshare --net bash -c 'ip link set lo up && exec "$@"' - target/kubernetes/bin/python tests/packages/pod.py "$binary" "$dir"
