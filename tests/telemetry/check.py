#!/usr/bin/env python3
"""Looks at what a Prometheus has of a gateway: see run.sh. Usage: check.py wait|scraped|all URL FOLDER"""
import json
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

what, base, folder = sys.argv[1:]
root = Path(__file__).resolve().parents[2]
# Nothing is wrong in this province, so these have no series, and these panels are empty.
EMPTY = {
    "Drift from the contracts, an hour", "Second hub", "Fields in which a second hub differs", "Refused unseen, suppressed, limited",
}


def get(path, **query):
    with urllib.request.urlopen(f"{base}{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
        found = json.load(answer)
    assert found["status"] == "success", found
    return found["data"]


def eventually(holds, message, seconds=20):
    end = time.monotonic() + seconds
    while True:
        try:
            found = holds()
            if found:
                return found
        except (OSError, AssertionError) as error:
            found = error
        if time.monotonic() > end:
            sys.exit(f"{message}: {found}")
        time.sleep(0.2)


def query(text):
    return get("/api/v1/query", query=text)["result"]


if what == "wait":
    eventually(lambda: query('up{job="ndxp"} == 1'), "Prometheus does not scrape the gateway")
    sys.exit()

if what == "scraped":
    eventually(lambda: query('ndxp_exchanges_total{source="budgetunit", reason="OK"} == 3'), "the first calls are not counted")
    sys.exit()

wrong = []
passed = 0


def check(holds, message):
    global passed
    passed += 1
    if not holds:
        wrong.append(message)


# What happened is what Prometheus has.
eventually(lambda: query('ndxp_exchanges_total{source="budgetunit", reason="OK"} == 6'), "the calls are not counted")
eventually(lambda: query('sum(ndxp_exchange_faults_total{source="land", fault="caller"}) == 2'), "refusals are not counted")
eventually(lambda: query('ndxp_handshakes_refused_total{cause="no_certificate"} == 2'), "handshakes are not counted")
eventually(lambda: query('ndxp_stage_seconds_count{source="budgetunit", stage="source"} == 6'), "stages are not timed")
eventually(lambda: query("ndxp_access_lines_total >= 8"), "access lines are not counted")
eventually(lambda: query("ndxp_witness_cosigned_entries > 0 and on () ndxp_witness_up == 1"), "the witness is not seen")
eventually(lambda: query("ndxp_log_cosigned_entries > 0"), "cosigned entries are not counted")

# Every rule of the file was evaluated, none with an error; in a province in order, none fires or is about to.
groups = eventually(lambda: [group for group in get("/api/v1/rules")["groups"] if all(
    rule["health"] != "unknown" for rule in group["rules"])], "the rules are not evaluated")
rules = [rule for group in groups for rule in group["rules"]]
written = [line.split(": ")[1] for line in (root / "deploy/prometheus/ndxp.rules.yml").read_text().splitlines()
           if line.strip().startswith(("- alert:", "- record:"))]
check(sorted(rule["name"] for rule in rules) == sorted(written), "not every rule of the file is loaded")
for rule in rules:
    check(rule["health"] == "ok", f"{rule['name']}: {rule.get('lastError')}")
    check(not rule.get("alerts"), f"{rule['name']} fires, or is about to: {rule.get('alerts')}")

# Every query of the dashboard has an answer.
dashboard = json.loads((root / "deploy/grafana/ndxp-gateway.json").read_text())
for panel in dashboard["panels"]:
    for target in panel.get("targets", []):
        text = target["expr"].replace("$instance", ".*").replace("$source", ".*").replace("[5m]", "[1m]")
        try:
            found = query(text)
        except OSError as error:
            check(False, f"{panel['title']}: {error}: {text}")
            continue
        check(found or panel["title"] in EMPTY, f"{panel['title']} is empty: {text}")
for name in ("instance", "source"):
    check(any(one["name"] == name for one in dashboard["templating"]["list"]), f"the dashboard has no variable {name}")

# Series of one gateway: bounded by what it is configured with.
series = len(query('{job="ndxp", __name__=~"ndxp_.*"}'))
check(series < 5_000, f"{series} series of one gateway")

# The access lines are those of the calls.
lines = [json.loads(line) for line in (Path(folder) / "dev/gateway.log").read_text().splitlines() if line.startswith("{")]
lines = [line for line in lines if line.get("target") == "ndxp_gateway::access"]
check(sum(line["source"] == "budgetunit" and line["reason"] == "OK" for line in lines) == 6, f"access lines: {lines}")

for message in wrong:
    print(message)
print(f"{series} series, {len(rules)} rules, {len(lines)} access lines")
print(f"telemetry: {passed - len(wrong)} passed, {len(wrong)} failed")
sys.exit(bool(wrong))
