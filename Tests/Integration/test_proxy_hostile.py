"""Clients that break the rules, or keep to them in bad faith: each is stopped, and nobody else notices."""

import re
import socket
import struct
import subprocess

import pytest

from support import frames, net
from support.frames import (
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, INITIAL_WINDOW, PADDED, PING, PREFACE,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, RawClient, call, field, frame, head, message)
from support.grpc_calls import Caller, request
from support.waiting import Stopwatch, until

CALM, PROTOCOL, SIZE = frames.ENHANCE_YOUR_CALM, frames.PROTOCOL_ERROR, frames.FRAME_SIZE_ERROR


@pytest.fixture
def others(proxy):
    """A proxy, and a client of it who must not notice anything: a watch stays open over the whole test."""
    started = proxy("--threads", "1", "--advertise-client-url", "")
    with Caller(started.address) as caller:
        watch = caller.watch(b"others")

        class Others:
            address = started.address
            proxy = started
            count = 0

            def check(self):
                self.count += 1
                value = b"%d" % self.count
                caller.put(b"others", value)
                assert caller.get(b"others") == value
                assert watch.next().events[0].kv.value == value

        made = Others()
        made.check()
        yield made
        made.check()
        # Of all calls, only the watch is left.
        until(lambda: open_calls(started) == 1, 10, "the end of every other call")
        watch.cancel()


def open_calls(proxy):
    """Calls that have begun and not ended, by the proxy's own count."""
    with net.connect(proxy.address) as client:
        client.sendall(b"GET /proxy/metrics HTTP/1.0\r\n\r\n")
        text = net.read_to_end(client).decode()

    def total(name):
        return sum(int(count) for count in re.findall(rf"^grpc_server_{name}_total{{.*}} (\d+)$", text, re.M))

    return total("started") - total("handled")


def read_request(key, **fields):
    return request("KV/Range", key=key, **fields).SerializeToString()


@pytest.mark.parametrize("text", ["soon", "5", "123456789S", "1x"])
def test_a_deadline_that_is_none(others, text):
    """As etcd 3.5 answers it; etcd 3.4 resets the stream."""
    with RawClient(others.address) as client:
        fields = head(frames.RANGE, ("grpc-timeout", text))
        client.send(frame(HEADERS, END_HEADERS, 1, fields) + frame(DATA, END_STREAM, 1, message(read_request(b"a"))))
        _, flags, _, answer = client.read_until(lambda kind, _, stream: kind == HEADERS and stream == 1)
        # Plain literals, as all that the proxy sends to clients.
        assert flags & END_STREAM and b"grpc-status\x0213" in answer and b"malformed grpc-timeout" in answer


# Frames that are wrong.

OPEN = frame(HEADERS, END_HEADERS, 1, head())


@pytest.mark.parametrize("data, code", [
    (frame(DATA, 0, 0, b"x"), PROTOCOL),
    (frame(HEADERS, END_HEADERS, 0, head()), PROTOCOL),
    (frame(HEADERS, END_HEADERS, 2, head()), PROTOCOL),
    (frame(HEADERS, END_HEADERS, 3, head()) + OPEN, frames.STREAM_CLOSED),
    (frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff" + head()[:20]), PROTOCOL),
    (frame(HEADERS, END_HEADERS, 1, b"\x80"), frames.COMPRESSION_ERROR),
    (frame(HEADERS, 0, 1, head()) + frame(DATA, 0, 1, b"x"), PROTOCOL),
    (frame(CONTINUATION, END_HEADERS, 1, head()), PROTOCOL),
    (frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4) + head()), PROTOCOL),
    (frame(RST_STREAM, 0, 1, bytes(4)), PROTOCOL),
    (OPEN + frame(RST_STREAM, 0, 1, bytes(3)), SIZE),
    (frame(SETTINGS, 0, 0, bytes(5)), SIZE),
    (frame(SETTINGS, 0, 1), PROTOCOL),
    (frame(SETTINGS, ACK, 0, bytes(6)), SIZE),
    (frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, 1 << 31)), frames.FLOW_CONTROL_ERROR),
    (frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 100)), PROTOCOL),
    (frame(PING, 0, 0, bytes(7)), SIZE),
    (frame(PING, 0, 1, bytes(8)), PROTOCOL),
    (frame(WINDOW_UPDATE, 0, 0, bytes(4)), PROTOCOL),
    (frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7FFFFFFF)), frames.FLOW_CONTROL_ERROR),
    (frame(WINDOW_UPDATE, 0, 0, bytes(3)), SIZE),
    (frame(GOAWAY, 0, 0, bytes(7)), SIZE),
    (OPEN + frame(DATA, 0, 1, bytes(16385)), SIZE),
    (frame(0xEE, 0, 0, bytes(16385)), SIZE),
])
def test_malformed_frames(others, data, code):
    with RawClient(others.address) as client:
        client.push(data)
        assert client.goodbye() == code


@pytest.mark.parametrize("data", [
    b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"PRX", bytes(100), PREFACE + frame(PING, 0, 0, bytes(8)), b"\xff" * 5000])
def test_no_greeting(others, data):
    with RawClient(others.address, greets=False) as client:
        client.push(data)
        client.socket.shutdown(socket.SHUT_WR)
        try:
            net.read_to_end(client.socket)
        except ConnectionResetError:
            pass


@pytest.mark.parametrize("more, broken", [
    ([("Upper", "x")], None), ([("connection", "close")], None), ([(":path", "/twice")], None),
    ([("content-length", "7")], b"x"), ([("a", "new\nline")], None), ([("te", "gzip")], None)])
def test_malformed_requests_cost_their_stream_only(others, more, broken):
    with RawClient(others.address) as client:
        client.send(frame(HEADERS, END_HEADERS, 1, head(frames.RANGE, *more)))
        client.send(frame(DATA, END_STREAM, 1, message(broken or b"")))
        assert client.reset_code(1) == PROTOCOL
        client.send(call(3, read_request(b"others")))
        assert client.read_until(lambda kind, flags, stream: (kind, stream) == (DATA, 3))


# Floods.

def pings():
    return frame(PING, 0, 0, bytes(8)) * 200_000


def settings():
    return frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, 1000)) * 20_000


def empty_data():
    return OPEN + frame(DATA, 0, 1) * 200_000


def unknown_frames():
    return frame(0xEE, 0, 0, b"") * 200_000


def rapid_resets():
    return b"".join(
        frame(HEADERS, END_HEADERS, stream, head()) + frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
        for stream in range(1, 60_000, 2))


def continuations():
    return frame(HEADERS, 0, 1, head()) + frame(CONTINUATION, 0, 1, field("a", "b" * 1000)) * 5000


def empty_continuations():
    return frame(HEADERS, 0, 1, head()) + frame(CONTINUATION, 0, 1) * 100_000


@pytest.mark.parametrize("make", [
    pings, settings, empty_data, unknown_frames, rapid_resets, continuations, empty_continuations])
def test_floods(others, make):
    before = others.proxy.private_bytes
    with RawClient(others.address) as client:
        client.push(make())
        # What was still under way when the connection was closed may take the last word with it.
        assert client.goodbye() in (CALM, None)
    others.check()
    assert others.proxy.private_bytes - before < 16 << 20


def test_header_bombs(others):
    """A field of 4 KB that is named ten thousand times."""
    large = b"\x40" + field("bomb", "x" * 3900)[1:]
    bomb = head() + large + b"\xbe" * 12_000
    before = others.proxy.private_bytes
    for _ in range(20):
        with RawClient(others.address) as client:
            client.push(frame(HEADERS, 0, 1, bomb[:16000]) + frame(CONTINUATION, END_HEADERS, 1, bomb[16000:]))
            found = client.read_until(lambda kind, *_: kind in (RST_STREAM, GOAWAY, HEADERS))
            assert found
    assert others.proxy.private_bytes - before < 16 << 20


def test_pings_that_come_too_often(proxy):
    started = proxy("--grpc-keepalive-min-time", "5m")
    with RawClient(started.address) as client:
        for _ in range(5):
            client.push(frame(PING, 0, 0, bytes(8)))
        assert client.goodbye() == CALM


# In bad faith.

@pytest.fixture(scope="module")
def big_value(etcd):
    with Caller(etcd.client) as caller:
        caller.put(b"big", bytes(1 << 20))
        yield b"big"
        caller.ok("KV/DeleteRange", key=b"big")


def test_windows_of_zero(others, big_value):
    """Hundreds of large answers that the client asks for and does not take."""
    with RawClient(others.address, settings=[(INITIAL_WINDOW, 0)]) as client:
        stream = 1
        refused = False
        while not refused and stream < 2000:
            # Few at a time: the answers are etcd's memory, too.
            client.send(b"".join(call(stream + 2 * index, read_request(big_value)) for index in range(8)))
            stream += 16
            for _ in range(8):
                found = client.read_until(lambda kind, *_: kind == HEADERS)
                refused = refused or bool(found[1] & END_STREAM)
            others.check()
            assert others.proxy.private_bytes < 200 << 20
        assert refused
    until(lambda: others.proxy.private_bytes < 100 << 20, 10, "the memory back")


def test_large_answers_that_are_not_read(others, big_value):
    """Wide windows and a socket that is not read: what was asked for waits, and comes."""
    with RawClient(others.address, settings=[(INITIAL_WINDOW, (1 << 31) - 1)]) as client:
        client.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 31) - 65536)))
        client.send(b"".join(call(stream, read_request(big_value)) for stream in range(1, 61, 2)))
        others.check()
        others.check()
        assert others.proxy.private_bytes < 100 << 20
        received, ended = 0, 0
        while ended < 30:
            kind, flags, _, payload = client.read()
            received += len(payload) if kind == DATA else 0
            ended += bool(kind == HEADERS and flags & END_STREAM)
        assert received > 30 << 20


def test_a_request_byte_by_byte(others):
    with RawClient(others.address, greets=False) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in PREFACE + frame(SETTINGS, 0, 0) + call(1, read_request(b"others")):
            client.send(bytes([byte]))
        assert client.read_until(lambda kind, flags, stream: kind == HEADERS and flags & END_STREAM)


def test_messages_without_end(proxy):
    """In a namespace messages are collected, but not for ever."""
    started = proxy("--namespace", "ns/", "--threads", "1")
    with RawClient(started.address) as client:
        client.send(OPEN + frame(DATA, 0, 1, struct.pack(">BI", 0, 0xFFFFFFFF) + bytes(1000)))
        found = client.read_until(lambda kind, *_: kind == HEADERS)
        assert found[1] & END_STREAM
        client.send(call(3, b"\x0a\x01a"))
        assert client.read_until(lambda kind, flags, stream: (kind, stream) == (DATA, 3))


def test_a_watch_request_that_is_too_long(others):
    """It is read when it is there in full, but not for ever."""
    with RawClient(others.address) as client:
        client.send(frame(HEADERS, END_HEADERS, 1, head("/etcdserverpb.Watch/Watch")))
        client.send(frame(DATA, 0, 1, struct.pack(">BI", 0, 3 << 20) + bytes(1000)))
        found = client.read_until(lambda kind, *_: kind == HEADERS)
        assert found[1] & END_STREAM


def test_events_that_are_not_read_in_a_namespace(proxy, etcd):
    """A watch whose events are rewritten and not taken holds a bounded amount."""
    started = proxy("--namespace", "ns/", "--threads", "1")
    create = request("Watch/Watch", create_request={"key": b"a"}).SerializeToString()
    with RawClient(started.address, settings=[(INITIAL_WINDOW, 100)]) as client, Caller(etcd.client) as caller:
        client.send(frame(HEADERS, END_HEADERS, 1, head("/etcdserverpb.Watch/Watch")))
        client.send(frame(DATA, 0, 1, message(create)))
        assert client.read_until(lambda kind, *_: kind == DATA)
        before = started.private_bytes
        for _ in range(60):
            caller.put(b"ns/a", bytes(1 << 20))
        with Caller(started.address) as inside:
            assert len(inside.get(b"a")) == 1 << 20
        assert started.private_bytes - before < 24 << 20


def test_clients_that_do_not_answer_pings(proxy):
    started = proxy("--grpc-keepalive-interval", "1s", "--grpc-keepalive-timeout", "1s")
    with RawClient(started.address) as client:
        assert client.read_until(lambda kind, flags, stream: kind == PING and not flags & ACK)
        client.goodbye()  # Raises if the connection is kept.


def test_greetings_that_do_not_end(proxy, authority):
    """Silence, half a TLS handshake, half a preface, half an HTTP/1.1 head: a descriptor is not held for that."""
    plain = proxy()
    secure = proxy("--cert-file", authority.certificate("member"), "--key-file", authority.key("member"))
    watch = Stopwatch()
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    waiting = []
    for started, data in [(plain, b""), (plain, PREFACE[:10]), (plain, PREFACE), (plain, b"GET /health HT"),
                          (plain, b"GET /health HTTP/1.1\r\nHost:"), (secure, b""), (secure, hello)]:
        client = started.connect(timeout=20)
        client.sendall(data)
        waiting.append(client)
    with started.connect() as patient:
        for client in waiting:
            try:
                net.read_to_end(client)
            except ConnectionResetError:
                pass
            client.close()
        assert 8 < watch.seconds < 15
        assert patient
    with Caller(plain.address) as caller:
        caller.put(b"greeted", b"1")


def test_thousands_of_idle_connections(others):
    before, count = others.proxy.private_bytes, 3000
    idle = [RawClient(others.address) for _ in range(count)]
    try:
        for client in idle:
            assert client.read()[0] == SETTINGS
        others.check()
        assert (others.proxy.private_bytes - before) / count < 5 << 10
    finally:
        for client in idle:
            client.close()


@pytest.mark.skipif(not net.installed("h2load"), reason="h2load is missing: apt-get install nghttp2-client")
def test_h2load(others, tmp_path):
    body = tmp_path / "request"
    body.write_bytes(message(read_request(b"others")))
    count = 20_000
    result = subprocess.run(
        ["h2load", "-n", str(count), "-c", "100", "-m", "100", "-d", body, "-H", "content-type: application/grpc",
         "-H", "te: trailers", f"http://{others.address}/etcdserverpb.KV/Range"],
        capture_output=True, text=True, timeout=60)
    assert re.search(f"{count} succeeded, 0 failed, 0 errored, 0 timeout", result.stdout), result.stdout
    assert f"status codes: {count} 2xx" in result.stdout
