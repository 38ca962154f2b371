"""Large messages: in constant memory, within the limits, and without delay for the small ones beside them."""

import hashlib
import os
import queue
import threading

import grpc
import pytest

from support.calls import Client
from support.etcds import Etcd
from support.grpc_calls import Caller, request
from support.schema import METHODS
from support.waiting import until

MEGABYTE = 1 << 20
# Windows and buffers both ways, with room for what the process holds anyway.
CONSTANT = 32 * MEGABYTE


@pytest.fixture(scope="module")
def big_etcd(tmp_path_factory):
    """An etcd that holds 100 values of 1 MB under big/, and takes requests of 8 MiB."""
    member = Etcd("big", tmp_path_factory.mktemp("etcd-big"), extra=["--max-request-bytes", str(8 * MEGABYTE)])
    member.start()
    until(member.is_healthy, 40, "etcd", pause=0.05)
    with Caller(member.client) as caller:
        for index in range(100):
            caller.put(b"big/%03d" % index, os.urandom(1_000_000))
    yield member
    member.end()


class Ticker:
    """Puts a key and sees it on a watch of the client under test, over and over, while something else goes on."""

    def __init__(self, caller, direct):
        self.watch = caller.watch(b"tick")
        self.direct = direct
        self.rounds = 0
        self.failures = queue.SimpleQueue()
        self.isOver = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            while not self.isOver.is_set():
                value = b"%d" % self.rounds
                self.direct.put(b"tick", value)
                # Prompt: within a second, on a machine that does other things as well.
                assert self.watch.next(1).events[0].kv.value == value
                self.rounds += 1
        except Exception as error:  # Told by `end`.
            self.failures.put(error)

    def end(self):
        self.isOver.set()
        self.thread.join()
        self.watch.cancel()
        if not self.failures.empty():
            raise self.failures.get()
        return self.rounds


class Peak:
    """The most memory that a process has while something goes on."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.start = self.most = proxy.private_bytes
        self.isOver = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while not self.isOver.wait(0.005):
            self.most = max(self.most, self.proxy.private_bytes)

    def end(self):
        self.isOver.set()
        self.thread.join()
        return self.most - self.start


@pytest.fixture(params=["io_uring", "epoll"])
def started(request, proxy, big_etcd):
    return proxy("--endpoints", big_etcd.client, "--io-backend", request.param, "--advertise-client-url", "")


def test_a_range_of_100_mb(started, big_etcd):
    with Caller(started.address) as caller, Caller(big_etcd.client) as direct:
        caller.get(b"big/000")
        ticker, peak = Ticker(caller, direct), Peak(started)
        found = caller.ok("KV/Range", key=b"big/", range_end=b"big0")
        grown, rounds = peak.end(), ticker.end()
        assert [len(pair.value) for pair in found.kvs] == [1_000_000] * 100
        assert found.kvs == direct.ok("KV/Range", key=b"big/", range_end=b"big0").kvs
        assert grown < CONSTANT
        assert rounds > 0


def test_a_snapshot(started, big_etcd):
    with Caller(started.address) as caller, Caller(big_etcd.client) as direct:
        ticker, peak = Ticker(caller, direct), Peak(started)
        stream = caller.stream("Maintenance/Snapshot", request("Maintenance/Snapshot"))
        digest, pending, size = hashlib.sha256(), b"", 0
        while (part := stream.next(20)) is not None:
            # The digest of all of it comes last.
            pending += part.blob
            size += len(part.blob)
            digest.update(pending[:-32])
            pending = pending[-32:]
        grown, rounds = peak.end(), ticker.end()
        assert stream.ended["code"] == "OK"
        assert size > 100_000_000 and pending == digest.digest()
        assert grown < CONSTANT
        assert rounds > 0


def test_a_slow_reader_of_100_mb_holds_nobody_up(started, big_etcd):
    """A client that asks for 100 MB and does not read, beside one that reads."""
    with Client(started.address).channel as channel, Caller(started.address) as other:
        peak = Peak(started)
        method = METHODS["Maintenance/Snapshot"]
        slow = channel.unary_stream(
            method.path, request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=method.response.FromString)(request("Maintenance/Snapshot"), timeout=60)
        next(slow)
        for _ in range(3):
            assert len(other.ok("KV/Range", key=b"big/", range_end=b"big/02").kvs) == 20
        assert sum(len(part.blob) for part in slow) > 99_000_000
        assert peak.end() < CONSTANT


@pytest.mark.parametrize("size", [1, 16 << 10, 64 << 10, (64 << 10) + 1, 200_000, 1_400_000, 6 * MEGABYTE])
def test_large_puts(started, size):
    value = os.urandom(size)
    with Caller(started.address) as caller:
        caller.put(b"large", value)
        assert caller.get(b"large") == value
        caller.ok("KV/DeleteRange", key=b"large")


def test_large_messages_in_a_namespace(proxy, big_etcd):
    started = proxy("--endpoints", big_etcd.client, "--namespace", "big")
    with Caller(started.address) as caller:
        value = os.urandom(6 * MEGABYTE)
        caller.put(b"ger", value)
        assert caller.get(b"ger") == value
        caller.ok("KV/DeleteRange", key=b"ger")
        found = caller.ok("KV/Range", key=b"/", range_end=b"0")
        assert [pair.key for pair in found.kvs] == [b"/%03d" % index for index in range(100)]


def test_many_large_answers_at_once(started):
    peak = Peak(started)
    with Caller(started.address) as caller:
        futures = [caller.future("KV/Range", request("KV/Range", key=b"big/%03d" % index)) for index in range(100)]
        assert sum(len(future.result(30).kvs[0].value) for future in futures) == 100_000_000
    # Every stream may hold a window.
    assert peak.end() < 100 * MEGABYTE + CONSTANT


# Limits.


def ends(address, name, **fields):
    with Caller(address) as caller:
        ended = caller.unary(name, request(name, **fields))[1]
        return ended["code"], ended["text"]


def test_the_limit_on_requests(proxy, big_etcd):
    started = proxy("--endpoints", big_etcd.client, "--max-send-bytes", "1000")
    code, text = ends(started.address, "KV/Put", key=b"k", value=bytes(1000))
    assert (code, text) == ("RESOURCE_EXHAUSTED", "trying to send message larger than max (1006 vs. 1000)")
    assert ends(started.address, "KV/Put", key=b"k", value=bytes(994))[0] == "OK"


def test_without_the_flag_etcd_decides(started, etcd, proxy):
    assert ends(started.address, "KV/Put", key=b"k", value=bytes(3 * MEGABYTE))[0] == "OK"
    usual = proxy()
    with Caller(etcd.client) as direct:
        name, fields = "KV/Put", {"key": b"k", "value": bytes(1_600_000)}
        theirs = direct.unary(name, request(name, **fields))[1]
    code, text = ends(usual.address, name, **fields)
    assert (code, text) == (theirs["code"], theirs["text"])


def test_the_limit_on_answers(proxy, big_etcd):
    started = proxy("--endpoints", big_etcd.client, "--max-send-bytes", "100000", "--max-recv-bytes", "500000")
    code, text = ends(started.address, "KV/Range", key=b"big/000")
    assert code == "RESOURCE_EXHAUSTED"
    assert text.startswith("grpc: received message larger than max (10000")
    assert ends(started.address, "KV/Range", key=b"big/000", keys_only=True)[0] == "OK"


def test_the_limit_on_streams(proxy, big_etcd):
    started = proxy("--endpoints", big_etcd.client, "--max-concurrent-streams", "3")
    with Caller(started.address) as caller:
        watches = [caller.watch(b"w%d" % index) for index in range(3)]
        # The client knows of the limit and waits; the call is made when a stream ends.
        waiting = caller.future("KV/Range", request("KV/Range", key=b"big/000"))
        with pytest.raises(grpc.FutureTimeoutError):
            waiting.result(0.3)
        watches[0].cancel()
        assert len(waiting.result(10).kvs) == 1
        for watch in watches[1:]:
            watch.cancel()
