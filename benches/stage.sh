# Sourced by the other scripts, at the repository's root: a development folder in $dir/dev, its sandbox on core 1 (or SANDBOX_CORE), the
# gateway with one worker on core 0 (or WORKERS, CORES), and a client with all rights (pki/client.pem, pki/token.jwt). Sets bin, dir, pids,
# gateway (its process), port, control (the sandbox's faults), sample. Builds nothing: `cargo build --profile dist` first. BIN: another
# binary; INDEX=true also maintains the search index; SCOPE: the token's scope, by default all granted ones; SERVE: another binary that serves;
# SEALED=true: keys are sealed, as a cluster needs.
bin=${BIN:-$PWD/target/dist/ndxp-gateway} dir=$(mktemp -d) pids=()
trap 'for p in "${pids[@]}"; do kill $p 2>/dev/null || true; done; wait 2>/dev/null; rm -rf "$dir"' EXIT
"$bin" sandbox init --folder "$dir/dev" --free-ports > /dev/null
cd "$dir/dev"
sed -i "s/^\[listen\]/[listen]\nworkers = ${WORKERS:-1}/; s/^\[log\]/[log]\nindex = ${INDEX:-false}/" gateway.toml
if [ "${SEALED:-false}" = true ]; then
  head -c 32 /dev/urandom | base64 > secrets/keys; chmod 600 secrets/keys
  printf '\n[keys]\nencryption_secret = { file = "secrets/keys" }\n' >> gateway.toml
fi
taskset -c "${SANDBOX_CORE:-1}" "$bin" sandbox --config sandbox.toml > sandbox.log 2>&1 & pids+=($!)
NDXP_LOG=error taskset -c "${CORES:-0}" "${SERVE:-$bin}" serve --config gateway.toml > gateway.log 2>&1 & gateway=$!; pids+=($gateway)
for _ in $(seq 100); do grep -q "^gRPC on" gateway.log && break; sleep 0.1; done
control=$(sed -n 's/^control = "\(.*\)"/\1/p' sandbox.toml)
# The sandbox's example of an operation: its full name, a tab, a request.
sample() { "$bin" --output json sandbox samples | python3 -c '
import json, sys
one = next(one for one in json.load(sys.stdin) if one["operation"].endswith("/" + sys.argv[1]))
print(one["operation"], json.dumps(one["requests"][0], ensure_ascii=False), sep="\t")' "$1"; }
port=$(sed -n 's/^gRPC on [0-9.]*:\([0-9]*\).*/\1/p' gateway.log)
{
  "$bin" keys rotate
  "$bin" certs issue client --folder pki
  "$bin" certs issue second --staff --folder pki
  "$bin" staff bootstrap --administrator first --approver second
  "$bin" client add client --agency H49.12
  "$bin" grant add --client client --scope '*' --purpose '*' --field '*' --rate 1000000 --burst 1000000 --legal-basis bench
  sleep 1
  "$bin" grant approve "$("$bin" --output json grant list | python3 -c 'import json,sys; print(json.load(sys.stdin)[0]["id"])')" \
    --remote "https://localhost:$port" --ca pki/ca.pem --certificate pki/second.pem
  "$bin" token issue --client client --certificate pki/client.pem ${SCOPE:+--scope "$SCOPE"} --out pki/token.jwt
} > setup.log 2>&1
sleep 1
