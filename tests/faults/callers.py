"""Callers, each with a connection to one gateway by HTTPS and plain JSON: what was answered, and when."""
import collections
import http.client
import ssl
import threading
import time

PATH, BODY = "/v1/budgetunit/GetUnit", '{"unitCode": "1057000"}'


class Callers:
    """Threads that call until they are ended. Run in the callers' namespace."""

    def __init__(self, folder, addresses, port, each=2):
        self.folder, self.addresses, self.port = folder, addresses, port
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.answered = {}
        # Reasons of refusals, and calls whose connection ended or was silent: whether these are in the log is open.
        self.refused = {}
        self.unanswered = 0
        self.last = {address: 0.0 for address in addresses}
        # Times of answers to the client that is suspended meanwhile.
        self.of_victim = []
        people = [("shop", address) for address in addresses for _ in range(each)]
        people += [("victim", address) for address in addresses]
        self.threads = [threading.Thread(target=self.call, args=one, daemon=True) for one in people]

    def start(self):
        for thread in self.threads:
            thread.start()

    def end(self):
        self.ended.set()
        for thread in self.threads:
            thread.join(timeout=20)

    def call(self, client, address):
        context = ssl.create_default_context(cafile=self.folder / "pki/ca.pem")
        context.load_cert_chain(self.folder / f"pki/{client}.pem", self.folder / f"pki/{client}.key")
        headers = {"Authorization": "Bearer " + (self.folder / f"{client}.jwt").read_text().strip(),
                   "Content-Type": "application/json"}
        connection = None
        while not self.ended.is_set():
            try:
                if connection is None:
                    connection = http.client.HTTPSConnection(address, self.port, context=context, timeout=4)
                connection.request("POST", PATH, body=BODY, headers=headers)
                answer = connection.getresponse()
                body = answer.read()
                self.note(client, address, answer, body)
                if answer.status != 200:
                    time.sleep(0.05)
                elif client == "victim":
                    time.sleep(0.2)
            except (OSError, http.client.HTTPException):
                connection = self.drop(connection)

    def drop(self, connection):
        with self.lock:
            self.unanswered += 1
        if connection is not None:
            connection.close()
        time.sleep(0.1)
        return None

    def note(self, client, address, answer, body):
        with self.lock:
            if answer.status != 200:
                reason = body[:400].decode(errors="replace").split('"reason":"')[-1].split('"')[0]
                self.refused[reason] = self.refused.get(reason, 0) + 1
                return
            self.answered[answer.headers["ndxp-exchange-id"]] = address
            self.last[address] = time.monotonic()
            if client == "victim":
                self.of_victim.append((time.monotonic(), address))

    def counts(self):
        """How many calls each gateway has answered."""
        with self.lock:
            counted = collections.Counter(self.answered.values())
        return [counted[address] for address in self.addresses]

    def answer_all(self, seconds):
        """Waits until every gateway has answered a call that is newer than this; returns whether they do."""
        since, end = time.monotonic(), time.monotonic() + seconds
        while time.monotonic() < end:
            with self.lock:
                if all(last > since for last in self.last.values()):
                    return True
            time.sleep(0.05)
        return False
