"""Calls of every kind, again and again, and what became of them."""

import threading
import time

from support.calls import Client, Silence
from support.schema import METHODS, build

DEADLINE = 4.0       # seconds of a unary call
HUNG = 15.0          # seconds after which a stream that says nothing is hung
ALLOWED = {"OK", "UNAVAILABLE", "DEADLINE_EXCEEDED"}


def request(name, /, **fields):
    return build(METHODS[name].request, fields)


class Worker(threading.Thread):
    """One client with a channel of its own."""

    def __init__(self, load):
        super().__init__(daemon=True)
        self.load = load
        self.client = Client(load.address)
        self.problems = []

    def run(self):
        try:
            while not self.load.stopped.wait(self.load.pause):
                self.turn()
        except Exception as error:  # a test looks at the problems
            self.problems.append(repr(error))
        finally:
            self.client.close()


class Caller(Worker):
    """Unary calls with a deadline."""

    def __init__(self, load, name, **fields):
        super().__init__(load)
        self.name_of_call = name
        self.request = request(name, **fields)
        self.good = 0
        self.codes = {}
        self.outage = 0.0
        self.since = None

    def turn(self):
        start = time.monotonic()
        _, status = self.client.unary(self.name_of_call, self.request, timeout=DEADLINE)
        end = time.monotonic()
        code = status["code"]
        self.codes[code] = self.codes.get(code, 0) + 1
        if code not in ALLOWED:
            self.problems.append(f"{self.name_of_call}: {status}")
        if end - start > DEADLINE + 2:
            self.problems.append(f"{self.name_of_call} took {end - start:.1f} s: {status}")
        self.since = start if self.since is None else self.since
        self.outage = max(self.outage, end - self.since)
        if code == "OK":
            self.good += 1
            self.since = None


class Streamer(Worker):
    """A stream that is opened again when it ends, which it may do with Unavailable alone."""

    def __init__(self, load):
        super().__init__(load)
        self.stream = None
        self.heard = 0
        self.ends = []
        self.asked = None

    def turn(self):
        if self.stream is None:
            self.open()
            self.asked = time.monotonic()
        try:
            response = self.stream.next(0.2)
        except Silence:
            return self.silence()
        if response is not None:
            self.asked = None
            return self.take(response)
        self.ends.append(self.stream.ended)
        if self.stream.ended["code"] != "UNAVAILABLE":
            self.problems.append(f"{self.stream.name} ended: {self.stream.ended}")
        self.stream = None

    def silence(self):
        if self.asked and time.monotonic() - self.asked > HUNG:
            self.problems.append(f"{self.stream.name} is hung")
            self.asked = None

    def run(self):
        super().run()
        if self.stream:
            self.stream.cancel()


class Watcher(Streamer):
    """Watches the pulse from where it was; no beat may be missed."""

    next_revision = 0
    value = None

    def open(self):
        create = {"key": b"pulse", "start_revision": self.next_revision}
        self.stream = self.client.stream(
            "Watch/Watch", request("Watch/Watch", create_request=create), metadata=(("hasleader", "true"),),
            timeout=None)

    def take(self, response):
        if response.canceled:
            self.problems.append(f"watch was cancelled: {response.cancel_reason}")
        if response.created and not self.next_revision:
            self.next_revision = response.header.revision + 1
        for event in response.events:
            if event.kv.mod_revision < self.next_revision:
                self.problems.append(f"event {event.kv.mod_revision} came again")
            value = int(event.kv.value)
            if self.value is not None and value not in (self.value, self.value + 1):
                self.problems.append(f"pulse {value} followed {self.value}")
            self.value = value
            self.next_revision = event.kv.mod_revision + 1
        self.heard += 1


class Keeper(Streamer):
    """Keeps a lease alive."""

    lease = None

    def open(self):
        if self.lease is None:
            grant = request("Lease/LeaseGrant", TTL=600)
            answer, status = self.client.unary("Lease/LeaseGrant", grant, timeout=30)
            assert answer, status
            self.lease = answer.ID
        self.stream = self.client.stream("Lease/LeaseKeepAlive", self.beat, timeout=None)

    @property
    def beat(self):
        return request("Lease/LeaseKeepAlive", ID=self.lease)

    def take(self, response):
        if response.TTL <= 0:
            self.problems.append("the lease is gone")
        self.heard += 1
        self.load.stopped.wait(0.05)
        self.stream.send(self.beat)
        self.asked = time.monotonic()


class Load:
    """Readers, writers, watchers and keepers of leases against `address`. Use with `with`."""

    def __init__(self, address, callers=2, streamers=2, pause=0.005):
        self.address = address
        self.pause = pause
        self.stopped = threading.Event()
        self.beats = 0
        self.readers = [Caller(self, "KV/Range", key=b"pulse") for _ in range(callers)]
        self.writers = [
            Caller(self, "KV/Put", key=b"w%d" % index, value=b"x" * 100) for index in range(callers)]
        self.watchers = [Watcher(self) for _ in range(streamers)]
        self.keepers = [Keeper(self) for _ in range(streamers)]

    @property
    def workers(self):
        return self.readers + self.writers + self.watchers + self.keepers

    def __enter__(self):
        for worker in self.workers:
            worker.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.stopped.set()
        for worker in self.workers:
            worker.join(30)
            assert not worker.is_alive(), f"{worker} is hung"

    @property
    def problems(self):
        return [problem for worker in self.workers for problem in worker.problems]

    def more(self, count=20):
        """True once every caller has seen so many more successes, and every keeper an answer, than now."""
        callers = [(caller, caller.good + count) for caller in self.readers + self.writers]
        keepers = [(keeper, keeper.heard + 2) for keeper in self.keepers]

        def check():
            assert not self.problems, self.problems
            return all(caller.good >= mark for caller, mark in callers) and all(
                keeper.heard >= mark for keeper, mark in keepers) and all(
                    watcher.heard for watcher in self.watchers)

        return check

    def pulse(self, client):
        """Writes the next beat, by another way than the proxy; true once every watcher has seen it."""
        self.beats += 1
        put = request("KV/Put", key=b"pulse", value=b"%d" % self.beats)
        while client.unary("KV/Put", put, timeout=DEADLINE)[1]["code"] != "OK":
            pass
        beat = self.beats

        def check():
            assert not self.problems, self.problems
            return all(watcher.value == beat for watcher in self.watchers)

        return check

    def outage(self, callers):
        return max(caller.outage for caller in callers)

    def codes(self, callers):
        total = {}
        for caller in callers:
            for code, count in caller.codes.items():
                total[code] = total.get(code, 0) + count
        return total
