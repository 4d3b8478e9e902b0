#!/bin/bash
# Makes a CA with certificates of etcd's members and users. Each member needs two: of the CA of its client port, and of another CA of its peer
# port, since whoever has a certificate of the peers' CA may take part in the cluster. Where the province issues certificates itself, they
# serve as well: with these names and key usages, from two CAs of this purpose alone.
# Usage: deploy/cluster/certificates.sh FOLDER ca                      # a new CA: one folder for clients, another for peers
#        deploy/cluster/certificates.sh FOLDER server NAME HOST...     # a member's client port, with all names by which gateways reach it
#        deploy/cluster/certificates.sh FOLDER peer NAME HOST...       # a member's peer port, with all names by which members reach it
#        deploy/cluster/certificates.sh FOLDER user NAME               # who connects: a user of etcd, gateway or root
# Writes NAME.pem and NAME.key, of which an existing one is never replaced. ca.key belongs on none of the machines.
set -euo pipefail
umask 077

usage() {
  sed -n '/^# Usage/,/^# Writes/p' "$0" | sed 's/^# //' >&2
  exit 2
}

[ $# -ge 2 ] || usage
folder=$1 kind=$2 name=${3:-ca}
[[ $name =~ ^[a-z0-9][a-z0-9.-]*$ ]] || usage
mkdir -p "$folder"
cd "$folder"
if [ -e "$name.pem" ] || [ -e "$name.key" ]; then
  echo "$folder/$name.pem or .key exists: move it away, or take another name" >&2
  exit 1
fi

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

case $kind in
ca)
  key ca.key
  openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj "/CN=etcd CA, ${PWD##*/}" -out ca.pem \
    -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign
  ;;
server | peer)
  [ $# -ge 4 ] || usage
  names=
  for host in "${@:4}"; do
    if [[ $host =~ ^[0-9.]+$ || $host == *:* ]]; then names+=,IP:$host; else names+=,DNS:$host; fi
  done
  use=serverAuth
  if [ "$kind" = peer ]; then use=serverAuth,clientAuth; fi
  extensions="extendedKeyUsage=$use
subjectAltName=${names#,}"
  ;;
user)
  [ $# -eq 3 ] || usage
  extensions="extendedKeyUsage=clientAuth"
  ;;
*) usage ;;
esac
if [ "$kind" != ca ]; then
  key "$name.key"
  openssl req -new -key "$name.key" -subj "/CN=$name" -out "$name.csr"
  openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -days 397 -sha256 -out "$name.pem" -extfile <(
    echo "basicConstraints=critical,CA:FALSE"
    echo "keyUsage=critical,digitalSignature"
    echo "$extensions"
  ) 2> /dev/null
  rm "$name.csr"
fi
echo "$folder/$name.pem and $folder/$name.key"
