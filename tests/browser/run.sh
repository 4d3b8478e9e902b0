#!/bin/bash
# The console in a real browser (Debian's chromium, playwright-core): as each role, in both languages, on a laptop and on a phone, with
# axe-core over every page. Screenshots lie in target/browser. Usage: tests/browser/run.sh, after cargo build; needs node and chromium,
# which .ci/run installs.
#   BIN      the gateway's binary (target/debug/ndxp-gateway)
#   SUITES   which of the suites beside this file run, in this order (all)
#   ALL      each language on both screens, not on one of them
set -eu
cd "$(dirname "$0")/../.."
bin=$(realpath "${BIN:-target/debug/ndxp-gateway}") suite=$PWD/tests/browser out=$PWD/target/browser dir=$(mktemp -d) pids=()
trap 'for p in "${pids[@]}"; do kill "$p" 2> /dev/null || true; done; wait 2> /dev/null; rm -rf "$dir"' EXIT
rm -rf "$out" && mkdir -p "$out"
"$bin" sandbox init --folder "$dir/dev" --free-ports > /dev/null
cd "$dir/dev"
export NODE_PATH=${NODE_PATH:-$suite/../../target/npm/node_modules}
# A single sign-on of the province's: at localhost, another site than the gateway's 127.0.0.1.
sso=$(python3 "$suite/../telemetry/free_port.py") back=https://$(sed -n 's/^https = "\(.*\)"$/\1/p' gateway.toml)/console/openid/callback
echo a-secret-of-this-run > openid.secret
printf '%s\n' '[web.openid]' 'name = "SSO Quảng Ninh"' "issuer = \"https://localhost:$sso\"" 'client_id = "ndxp-gateway"' \
  'client_secret = { file = "openid.secret" }' "redirect_uri = \"$back\"" >> gateway.toml
node "$suite/provider.cjs" "$sso" "$back" a-secret-of-this-run pki > provider.log 2>&1 & pids+=($!)
"$bin" sandbox --config sandbox.toml > sandbox.log 2>&1 & pids+=($!)
NDXP_LOG=error "$bin" serve --config gateway.toml > gateway.log 2>&1 & pids+=($!)
for _ in $(seq 600); do grep -q "^gRPC on" gateway.log && break; sleep 0.1; done
grpc=$(sed -n 's/^gRPC on \([0-9.:]*\),.*/\1/p' gateway.log) https=$(sed -n 's/.*HTTPS on \(https:[^,]*\),.*/\1/p' gateway.log)
export NDXP_CONFIG=gateway.toml
as() { printf '%s\n' --remote "https://$grpc" --ca pki/ca.pem --certificate "pki/$1.pem"; }
first() { python3 -c 'import json, sys; print(next(one["id"] for one in json.load(sys.stdin) if one[sys.argv[1]].startswith(sys.argv[2])))' "$@"; }
{
  "$bin" keys rotate
  for person in lan minh kiem van stranger; do "$bin" certs issue $person --staff --folder pki; done
  for system in one-stop-shop portal; do "$bin" certs issue $system --folder pki; done
  "$bin" staff bootstrap --administrator lan --approver minh
  "$bin" client add one-stop-shop --agency H49.12 --contact "02033 825 566"
  # A long name, and what no page may take for its own.
  "$bin" client add cong-dich-vu-cong-truc-tuyen-mot-cua-lien-thong-tinh-quang-ninh --agency H49.12.34.567 \
    --contact "Trung tâm Phục vụ hành chính công tỉnh <script>alert(1)</script><img src=x onerror=alert(1)>"
  "$bin" grant add --client one-stop-shop --scope budgetunit:read --scope catalogue:read --purpose '*' --field '*' --legal-basis "NĐ 278/2025/NĐ-CP"
  "$bin" token issue --client one-stop-shop --certificate pki/one-stop-shop.pem --out shop.jwt
  mapfile -t lan < <(as lan); mapfile -t minh < <(as minh)
  for pair in kiem:auditor van:operator; do
    "$bin" staff add "${pair%:*}" --role "${pair#*:}" "${lan[@]}"
    "$bin" change approve "$("$bin" --output json change list | first object "staff:${pair%:*}")" "${minh[@]}"
  done
  # Four systems that look one person up on one day: an anomaly.
  for system in so-tu-phap so-tai-chinh so-nong-nghiep cong-an-tinh; do
    "$bin" certs issue $system --folder pki
    "$bin" client add $system --agency H49.13
    "$bin" grant add --client $system --scope population:verify --purpose '*' --field '*' --legal-basis "NĐ 278/2025/NĐ-CP"
    "$bin" token issue --client $system --certificate pki/$system.pem --out $system.jwt
    "$bin" call PopulationService/VerifyCitizen --purpose H49.13-261127-0001 --official H49.13.001 --to "https://$grpc" --ca pki/ca.pem \
      --data '{"citizenId": "022055356620", "fullName": "Nguyễn Văn An", "birthDate": {"year": 1955, "month": 3, "day": 2}}' \
      --certificate pki/$system.pem --token-file $system.jwt || true
  done
  "$bin" call BudgetUnitService/GetUnit --data '{"unitCode": "1057000"}' --to "https://$grpc" --ca pki/ca.pem \
    --certificate pki/one-stop-shop.pem --token-file shop.jwt
} > setup.log 2>&1 || { cat setup.log; exit 1; }
for _ in $(seq 100); do grep -q "^ready" provider.log && break; sleep 0.1; done
failed=0
for one in ${SUITES:-console auditor operator developer openid}; do
  echo "== $one"
  node "$suite/$one.cjs" "$https" "$dir/dev/pki" "$out" || failed=1
done
exit $failed
