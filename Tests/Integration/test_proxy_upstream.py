"""Servers behind the gRPC proxy that break off, say nonsense or say nothing."""

import threading

import pytest

from support import net
from support.call_load import request
from support.calls import Client
from support.fake_etcd import (
    HEAD, HEADERS, DATA, END_HEADERS, INTERNAL_ERROR, MESSAGE, REFUSED_STREAM, RESET, FakeEtcd, Once, answering,
    frame)
from support.grpc_proxy import GrpcProxy
from support.proxy_state import open_calls, wait_until_idle
from support.waiting import Stopwatch, until

RANGE = request("KV/Range", key=b"a")
PUT = request("KV/Put", key=b"a", value=b"1")


@pytest.fixture
def proxy(backend):
    running = []

    def start(*fakes, arguments=()):
        made = GrpcProxy(
            "--io-backend", backend, "--enable-pprof", "--endpoints",
            ",".join(fake.address for fake in fakes), *arguments)
        running.append(made)
        return made

    yield start
    for made in running:
        assert made.end() == 0, made.log


@pytest.fixture
def through(proxy):
    """A client of a proxy before these fakes, whose health has been asked and is not asked again."""
    made = []

    def connect(*fakes, settled=True, arguments=("--health-interval", "1h")):
        one = proxy(*fakes, arguments=arguments)
        if settled:
            until(lambda: all(fake.calls for fake in fakes), what="the first health checks")
        made.append(Client(one.address))
        made[-1].proxy = one
        return made[-1]

    yield connect
    for one in made:
        one.close()
        wait_until_idle(one.proxy)


def close(connection, stream):
    connection.socket.shutdown(2)


def reset(connection, stream):
    connection.reset()


def garbage(connection, stream):
    connection.garbage()


def go_away_before_it(connection, stream):
    connection.go_away(last=0)


def refuse_stream(connection, stream):
    connection.reset_stream(stream, REFUSED_STREAM)


def unavailable(connection, stream):
    connection.refuse(stream, 14, b"etcdserver: leader changed")


BEFORE_AN_ANSWER = [close, garbage, go_away_before_it, refuse_stream, unavailable]
NEVER_SEEN = [go_away_before_it, refuse_stream]


def fakes_with(peers, fault, count):
    """Fakes that answer their first health check, and share a fault from then on."""
    fakes = [peers.keep(FakeEtcd()) for _ in range(count)]

    def arm():
        once = Once(fault)
        for fake in fakes:
            fake.script = once
        return once

    return fakes, arm


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("fault", BEFORE_AN_ANSWER, ids=lambda fault: fault.__name__)
def test_read_is_made_again(through, peers, fault, count):
    fakes, arm = fakes_with(peers, fault, count)
    client = through(*fakes)
    once = arm()
    answer, status = client.unary("KV/Range", RANGE)
    if fault is unavailable and count == 1:
        # There is nobody else to ask: etcd's own words.
        assert (status["code"], status["text"]) == ("UNAVAILABLE", "etcdserver: leader changed")
    else:
        assert answer and answer.count == 1, status
        assert once.done == 2


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("fault", BEFORE_AN_ANSWER, ids=lambda fault: fault.__name__)
def test_write_is_made_again_only_if_nobody_saw_it(through, peers, fault, count):
    fakes, arm = fakes_with(peers, fault, count)
    client = through(*fakes)
    once = arm()
    # Without a deadline, so that nothing but the proxy can end it.
    call = client.future("KV/Put", PUT, timeout=None)
    if fault in NEVER_SEEN:
        assert call.result(10) is not None
        assert once.done == 2
    else:
        assert call.exception(10).code().name == "UNAVAILABLE"
        assert once.done == 1
    assert client.unary("KV/Put", PUT)[0] is not None


def half_answer_and_close(connection, stream):
    connection.half_answer(stream)
    connection.socket.shutdown(2)


def test_half_an_answer_is_not_made_whole(through, peers):
    fakes, arm = fakes_with(peers, half_answer_and_close, 2)
    client = through(*fakes)
    once = arm()
    assert client.unary("KV/Range", RANGE)[1]["code"] == "UNAVAILABLE"
    assert once.done == 1


def test_reset_of_a_stream_is_passed_on(through, peers):
    def fail_it(connection, stream):
        connection.reset_stream(stream, INTERNAL_ERROR)

    fakes, arm = fakes_with(peers, fail_it, 2)
    client = through(*fakes)
    once = arm()
    assert client.unary("KV/Range", RANGE)[1]["code"] == "INTERNAL"
    assert once.done == 1


def test_end_without_trailers_is_an_error(through, peers):
    def end(connection, stream):
        connection.write(frame(HEADERS, END_HEADERS, stream, HEAD), frame(DATA, 1, stream, MESSAGE))

    fakes, arm = fakes_with(peers, end, 1)
    client = through(*fakes)
    arm()
    assert client.unary("KV/Range", RANGE)[1]["code"] == "INTERNAL"


GREETINGS = {
    "says nothing": b"", "speaks HTTP/1": b"HTTP/1.1 400 Bad Request\r\n\r\n", "garbage": bytes(range(64))}


@pytest.mark.parametrize("greeting", GREETINGS)
def test_other_endpoint_serves(through, peers, greeting):
    """Whichever is asked first: one that cannot be spoken with costs a call a moment."""
    wrong, right = peers.keep(FakeEtcd(greeting=GREETINGS[greeting])), peers.keep(FakeEtcd())
    for _ in range(3):
        client = through(wrong, right, settled=False, arguments=())
        watch = Stopwatch()
        for name, message in [("KV/Range", RANGE), ("KV/Put", PUT)]:
            answer, status = client.unary(name, message, timeout=10)
            assert answer is not None, status
        assert watch.seconds < 4


def test_endpoint_in_a_black_hole_costs_a_moment(through, peers):
    hole, right = peers.black_hole(), peers.keep(FakeEtcd())
    for _ in range(3):
        client = through(hole, right, settled=False, arguments=())
        watch = Stopwatch()
        assert client.unary("KV/Put", PUT, timeout=10)[0] is not None
        assert watch.seconds < 4


def test_endpoint_that_closes_at_once_is_left(through, peers):
    def accept_and_close(socket):
        socket.close()

    wrong, right = peers.server(accept_and_close), peers.keep(FakeEtcd())
    client = through(right, settled=True)
    assert client.unary("KV/Range", RANGE)[0] is not None
    other = through(wrong, right, settled=False)
    assert other.unary("KV/Put", PUT)[0] is not None


def test_endpoint_that_closes_after_its_settings(through, peers):
    """It seems to be well each time: a call must not chase it for ever."""
    fake = peers.keep(FakeEtcd())
    serve = fake.serve

    def greet_and_close(socket):
        net.read_exactly(socket, 24)
        socket.sendall(fake.greeting)
        socket.close()

    client = through(fake)
    fake.serve = greet_and_close
    for connection in list(fake.connections):
        connection.shutdown(2)
    watch = Stopwatch()
    assert client.unary("KV/Range", RANGE, timeout=3)[1]["code"] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert watch.seconds < 5
    fake.serve = serve
    assert client.unary("KV/Range", RANGE)[0] is not None


def test_silent_endpoint_costs_no_more_than_the_deadline(through, peers):
    client = through(peers.keep(FakeEtcd(greeting=b"")), settled=False)
    watch = Stopwatch()
    assert client.unary("KV/Range", RANGE, timeout=1)[1]["code"] == "DEADLINE_EXCEEDED"
    assert watch.seconds < 3


# Not shared with others, and not answered by the proxy itself.
PASSED_ON = [("ringway-bypass", "all")]


def test_call_that_is_never_answered(through, peers):
    """The endpoint lives but keeps one call: its deadline ends it at both sides."""
    fake = peers.keep(FakeEtcd())
    client = through(fake)
    fake.script = lambda connection, stream: None
    assert client.unary("KV/Range", RANGE, timeout=0.5)[1]["code"] == "DEADLINE_EXCEEDED"
    until(lambda: fake.resets == 1)


def test_streams_beyond_what_an_endpoint_allows_wait(through, peers):
    """One stream a connection: twenty calls at once take turns."""
    fake = peers.keep(FakeEtcd(max_streams=1))
    client = through(fake)
    held, lock = [], threading.Lock()

    def hold(connection, stream):
        with lock:
            held.append((connection, stream))

    fake.script = hold
    calls = [client.future("KV/Range", RANGE, PASSED_ON) for _ in range(20)]
    until(lambda: open_calls(client.proxy) == {"KV/Range": 20})
    answered = 0
    while answered < 20:
        connection, stream = until(lambda: held and held.pop())
        connection.answer(stream)
        answered += 1
    assert all(call.result(10).count == 1 for call in calls)
    assert fake.most_open == 1


# Streams


def watch_of(client):
    """One that the proxy passes on: what the fake says on it is no watch that could be shared."""
    return client.stream("Watch/Watch", request("Watch/Watch", create_request={"key": b"a"}), metadata=PASSED_ON)


CREATED = b"\0\0\0\0\2\x18\x01"


def begin(connection, stream, message=CREATED):
    connection.write(frame(HEADERS, END_HEADERS, stream, HEAD), frame(DATA, 0, stream, message))


@pytest.mark.parametrize("fault", [close, reset, garbage], ids=lambda fault: fault.__name__)
def test_stream_ends_with_its_connection(through, peers, fault):
    fake = peers.keep(FakeEtcd())
    client = through(fake)
    began = []

    def script(connection, stream):
        began.append((connection, stream))
        begin(connection, stream)

    fake.script = script
    watch = watch_of(client)
    assert watch.next().created
    connection, stream = began[0]
    # A reset while the other thread reads would only be a close.
    if fault is reset:
        connection.socket.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
        close(connection, stream)
    else:
        fault(connection, stream)
    assert watch.next() is None
    assert watch.ended["code"] == "UNAVAILABLE"


def test_stream_outlives_a_go_away_that_names_it(through, peers):
    fake = peers.keep(FakeEtcd())
    client = through(fake)
    began = []

    def script(connection, stream):
        began.append((connection, stream))
        begin(connection, stream)

    fake.script = script
    first = watch_of(client)
    assert first.next().created
    connection, stream = began[0]
    connection.go_away(last=stream)
    second = watch_of(client)
    assert second.next().created
    until(lambda: len(began) > 1)
    if began[1][0] is connection:
        pytest.skip("the new stream was faster than the notice")
    connection.write(frame(DATA, 0, stream, CREATED), connection.trailers(stream))
    assert first.next().created
    assert first.next() is None and first.ended["code"] == "OK"
    second.cancel()


def test_all_of_an_answer_comes_although_etcd_is_done_with_the_stream(through, peers):
    """etcd ends a stream whose client has not with trailers and a reset; the answer before them still waits for
    the client's window."""
    fake = peers.keep(FakeEtcd())
    client = through(fake)
    # WatchResponse.cancel_reason, of a size that no window takes at once.
    size = 200_000
    body = b"\x32" + bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + b"x" * size
    message = b"\0" + len(body).to_bytes(4, "big") + body
    pieces = [message[at:at + 16_000] for at in range(0, len(message), 16_000)]

    def script(connection, stream):
        connection.write(
            frame(HEADERS, END_HEADERS, stream, HEAD), *(frame(DATA, 0, stream, piece) for piece in pieces),
            connection.trailers(stream, 14, b"etcdserver: no leader"), frame(RESET, 0, stream, b"\0\0\0\0"))

    fake.script = script
    watch = watch_of(client)
    assert len(watch.next().cancel_reason) == size
    assert watch.next() is None
    assert (watch.ended["code"], watch.ended["text"]) == ("UNAVAILABLE", "etcdserver: no leader")


def test_stream_ends_when_an_endpoint_falls_silent_after_an_error(through, peers):
    """The first health check that fails is refused, only later ones are not answered, and there is a better one."""
    fake, other = peers.keep(FakeEtcd()), peers.keep(FakeEtcd(close))
    client = through(fake, other, arguments=("--health-interval", "200ms", "--health-timeout", "200ms"))
    client.proxy.wait_for("endpoint does not answer; calls go elsewhere")
    fake.script = lambda connection, stream: begin(connection, stream)
    watch = watch_of(client)
    assert watch.next().created
    other.script = answering
    fake.script = fault = Once(close)
    fault.otherwise = lambda connection, stream: None
    assert watch.next(10) is None
    assert watch.ended["code"] == "UNAVAILABLE"
    fake.script = answering


def test_stream_that_etcd_alone_has_ended_is_not_kept(through, peers):
    fake = peers.keep(FakeEtcd())
    client = through(fake)
    fake.script = lambda connection, stream: connection.write(
        frame(HEADERS, END_HEADERS, stream, HEAD), connection.trailers(stream))
    watch = watch_of(client)
    assert watch.next() is None
    until(lambda: fake.resets == 1)
