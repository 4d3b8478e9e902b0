"""What the console in use costs calls: latency and workers' CPU of calls at a fixed rate, in interleaved rounds without and with somebody who opens
page after page at the console. Builds nothing: `cargo build --profile dist` first.

    target/python/bin/python benches/console_calls.py [ROUNDS] [SECONDS] [RATE] [PAGES]    # 6 rounds of 10 s each, 300 calls and 10 pages a second

Pages are those with most work: overview, clients, grants, tokens, exchanges by client, anomalies. Each page must be there (200).
"""
import http.client
import json
import os
import pathlib
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("NDXP_BIN", str(ROOT / "target/dist/ndxp-gateway"))
sys.path.insert(0, str(ROOT / "tests/python"))

from conftest import BINARY, Stage  # noqa: E402

PAGES = ["/console/", "/console/clients", "/console/grants", "/console/tokens", "/console/exchanges?client=one-stop-shop",
         "/console/findings"]


def cpu_us(pid, workers):
    """CPU of the threads that serve calls, or of all others, in microseconds (proc_pid_schedstat(5))."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().startswith("worker") == workers:
            total += int((task / "schedstat").read_text().split()[0]) / 1000
    return total


class Browser:
    """Somebody at the console, in a thread of their own."""

    def __init__(self, stage, pages_a_second):
        context = ssl.create_default_context(cafile=str(stage.folder / "pki/ca.pem"))
        context.load_cert_chain(stage.folder / "pki/hoa.pem", stage.folder / "pki/hoa.key")
        self.connection = http.client.HTTPSConnection(stage.https.removeprefix("https://"), context=context)
        self.headers, self.pause, self.seen = {"sec-fetch-site": "same-origin"}, 1 / pages_a_second, []
        status, response = self.send("POST", "/console/sign-in")
        assert status == 303, status
        cookies = [value.split(";")[0] for name, value in response.getheaders() if name.lower() == "set-cookie"]
        self.headers["cookie"] = "; ".join(cookies)
        self.stopped = threading.Event()

    def send(self, method, path):
        self.connection.request(method, path, headers=self.headers)
        response = self.connection.getresponse()
        response.read()
        return response.status, response

    def run(self):
        while not self.stopped.is_set():
            begun = time.monotonic()
            status, _ = self.send("GET", PAGES[len(self.seen) % len(PAGES)])
            self.seen.append(status)
            self.stopped.wait(max(0, self.pause - (time.monotonic() - begun)))

    def __enter__(self):
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()
        self.stopped.clear()


def main(rounds=6, seconds=10, rate=300, pages=10):
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(pathlib.Path(folder) / "dev")
        try:
            gateway = stage.prepare(rate=100_000)
            stage.staff("hoa", "administrator", "auditor")
            load = [BINARY, "--output", "json", "bench", "BudgetUnitService/GetUnit", "--data", '{"unitCode": "1057000"}', "--to",
                    f"https://localhost:{stage.port}", "--ca", "pki/ca.pem", "--certificate", "pki/one-stop-shop.pem",
                    "--token-file", "shop.jwt", "--rate", str(rate), "--time", f"{seconds}s", "--warmup", "1s"]
            browser, found = Browser(stage, pages), {"alone": [], "with the console": []}
            for _ in range(rounds):
                for name in found:
                    before = cpu_us(gateway.pid, True), cpu_us(gateway.pid, False)
                    run = lambda: subprocess.run(load, cwd=stage.folder, capture_output=True, text=True, check=True)
                    if name == "alone":
                        done = run()
                    else:
                        with browser:
                            done = run()
                    told = json.loads(done.stdout)
                    assert told["answered"] == told["calls"], told["outcomes"]
                    after = cpu_us(gateway.pid, True), cpu_us(gateway.pid, False)
                    calls, latency = told["calls"] * (seconds + 1) / seconds, told["latency_us"]
                    found[name].append((latency["p50"], latency["p99"], (after[0] - before[0]) / calls, (after[1] - before[1]) / calls))
            assert set(browser.seen) == {200}, browser.seen
            for name, each in found.items():
                p50, p99, workers, others = (statistics.median(column) for column in zip(*each))
                spread = sorted(one[1] for one in each)
                print(f"{name:17} p50 {p50 / 1000:.2f} ms, p99 {p99 / 1000:.2f} ms ({spread[0] / 1000:.2f} to {spread[-1] / 1000:.2f}), "
                      f"workers {workers:.0f} us a call, other threads {others:.0f} us a call")
            print(f"{len(browser.seen)} pages")
        finally:
            stage.stop()


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
