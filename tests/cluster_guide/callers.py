"""A caller at each gateway, all the time: every answer counts, and has to be in every log in the end."""
import ctypes
import http.client
import socket
import ssl
import threading
import time

PATH, BODY = "/v1/budgetunit/GetUnit", '{"unitCode": "1057000"}'
CLONE_NEWNET = 0x40000000


class Callers:
    """One thread for each gateway, in a network namespace; a call each 0.2 s."""

    def __init__(self, namespace, folder, gateways):
        self.folder, self.gateways = folder, gateways
        self.ended, self.lock = threading.Event(), threading.Lock()
        self.answered, self.refused = set(), {}
        self.last = {name: (0.0, "no call yet") for name in gateways}
        self.namespace = f"/run/netns/{namespace}"
        self.threads = [threading.Thread(target=self.call, args=one, daemon=True) for one in gateways.items()]

    def start(self):
        for thread in self.threads:
            thread.start()

    def end(self):
        self.ended.set()
        for thread in self.threads:
            thread.join(timeout=30)

    def enter(self):
        """This thread alone: os.setns is newer than Debian 12's Python."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open(self.namespace, "rb") as file:
            if libc.setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def connect(self, name, address):
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        context.load_cert_chain(self.folder / "shop.pem", self.folder / "shop.key")
        connection = http.client.HTTPConnection(name, 8443)
        plain = socket.create_connection((address, 8443), timeout=10)
        connection.sock = context.wrap_socket(plain, server_hostname=name)
        return connection

    def call(self, name, address):
        self.enter()
        token = (self.folder / "shop.jwt").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection = None
        while not self.ended.wait(0.2):
            try:
                connection = connection or self.connect(name, address)
                connection.request("POST", PATH, body=BODY, headers=headers)
                answer = connection.getresponse()
                self.note(name, answer, answer.read().decode(errors="replace"))
                if answer.will_close:
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                connection = None
                with self.lock:
                    self.last[name] = (self.last[name][0], repr(error))

    def note(self, name, answer, body):
        with self.lock:
            if answer.status == 200:
                self.answered.add(answer.headers["ndxp-exchange-id"])
                self.last[name] = (time.monotonic(), "")
                return
            reason = body.split('"reason":"')[-1].split('"')[0] if '"reason":"' in body else f"{answer.status} {body[:200]}"
            self.refused[reason] = self.refused.get(reason, 0) + 1
            self.last[name] = (self.last[name][0], reason)

    def all_answer(self, seconds=90):
        """Waits until every gateway has answered a call that came back after this."""
        since = time.monotonic()
        while time.monotonic() < since + seconds:
            with self.lock:
                late = {name: said for name, (at, said) in self.last.items() if at <= since}
            if not late:
                return
            time.sleep(0.05)
        raise AssertionError(f"no call is answered within {seconds} s: {late}")

    def refusals(self, reason, seconds=60):
        """Waits until every gateway refuses, the last call at least, with a reason."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with self.lock:
                others = {name: said for name, (_, said) in self.last.items() if said != reason}
            if not others:
                return
            time.sleep(0.05)
        raise AssertionError(f"not refused with {reason} within {seconds} s: {others}")
