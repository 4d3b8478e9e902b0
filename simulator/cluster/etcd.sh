#!/usr/bin/env bash
# Puts the etcd of Debian 13 (3.5.16 or newer), with etcdctl beside it, into target/etcd, without installing anything; prints the path of the
# program.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$PWD/target/etcd/usr/bin
if [ ! -x "$folder/etcd" ] || [ ! -x "$folder/etcdctl" ]; then
    apt=target/etcd/apt
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" > "$apt/sources.list"
    options=(-qq -o "Dir::Etc::sourcelist=$PWD/$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$PWD/$apt/lists" -o "Dir::Cache=$PWD/$apt/cache" -o APT::Sandbox::User=root
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
    apt-get "${options[@]}" update
    (cd "$apt" && apt-get "${options[@]}" download etcd-server etcd-client)
    for package in "$apt"/etcd-*.deb; do dpkg -x "$package" target/etcd; done
    rm -rf "$apt"
fi
"$folder/etcd" --version > /dev/null
echo "$folder/etcd"
