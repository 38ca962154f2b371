"""The metrics and health pages, and what they do with visitors that mean no good."""

import contextlib
import json
import socket
import threading

import pytest

from support import net, prometheus
from support.waiting import until

PREFIX = "ringway_gateway_"


@pytest.fixture
def watched(gateway, peers):
    """A gateway with a page, in front of one echo server."""
    server = peers.echo()
    made = gateway("--endpoints", server.address, "--metrics-addr", "127.0.0.1:0")
    return made, server


def page_address(made):
    return made.metrics_url.removeprefix("http://")


def exchange(made, data, ends=False):
    """Sends bytes to the page and returns everything that comes back until the page closes."""
    with net.connect(page_address(made)) as client:
        client.sendall(data)
        if ends:
            client.shutdown(socket.SHUT_WR)
        try:
            return net.read_to_end(client)
        except ConnectionResetError:
            return b"reset"


def test_counters_after_traffic(watched):
    made, server = watched
    for _ in range(5):
        with made.connect() as client:
            client.sendall(b"x" * 1000)
            assert net.read_exactly(client, 1000)
    open_now = made.connect()
    open_now.sendall(b"x")
    assert open_now.recv(1) == b"x"
    until(lambda: made.metric(PREFIX + "connections_active") == 1)
    # The client has read its last byte: so it is counted, or about to be.
    until(lambda: made.metric(PREFIX + "endpoint_received_bytes_total", endpoint=server.address) == 5001, 5)
    status, text = made.page("/metrics")
    samples = prometheus.read(text)
    endpoint = (("endpoint", server.address),)
    assert status == 200
    assert samples[PREFIX + "connections_accepted_total", ()] == 6
    assert samples[PREFIX + "connections_refused_total", ()] == 0
    assert samples[PREFIX + "connections_ended_total", (("reason", "finished"),)] == 5
    assert samples[PREFIX + "endpoint_connections_total", endpoint] == 6
    assert samples[PREFIX + "endpoint_connections_active", endpoint] == 1
    assert samples[PREFIX + "endpoint_sent_bytes_total", endpoint] == 5001
    assert samples[PREFIX + "endpoint_received_bytes_total", endpoint] == 5001
    assert samples[PREFIX + "connect_seconds_count", ()] == 6
    assert samples[PREFIX + "endpoint_state", (("endpoint", server.address), ("state", "up"))] == 1
    open_now.close()


def test_bytes_of_a_long_transfer_are_counted(watched):
    """Long transfers move to another path through the kernel, with its own accounts."""
    made, server = watched
    data = bytes(8 << 20)
    with made.connect() as client:
        threading.Thread(target=client.sendall, args=(data,), daemon=True).start()
        assert len(net.read_exactly(client, len(data))) == len(data)
    for name in ["endpoint_sent_bytes_total", "endpoint_received_bytes_total"]:
        until(lambda: made.metric(PREFIX + name, endpoint=server.address) == len(data))


def test_io_backend(watched, backend):
    made, _ = watched
    assert made.metric("ringway_io_backend", backend=backend) == 1


def test_health(watched, peers):
    made, server = watched
    status, body = made.page("/health")
    assert (status, json.loads(body)["health"]) == (200, "true")
    server.close()
    assert made.ask() == ""
    status, body = made.page("/health")
    assert (status, json.loads(body)["health"]) == (503, "false")
    peers.echo(address=server.address)
    until(lambda: made.page("/health")[0] == 200)


@pytest.mark.parametrize("spelling", [
    "http://127.0.0.1:{}", "127.0.0.1:{}", "http://127.0.0.1:{}/", "http://:{}"])
def test_spellings_of_the_address(gateway, peers, spelling):
    port = net.free_port()
    made = gateway("--endpoints", peers.echo().address, "--metrics-addr", spelling.format(port))
    made.find("listening for metrics")[0]["address"] = f"127.0.0.1:{port}"
    assert made.page("/health")[0] == 200


def test_unix_page(gateway, peers, tmp_path):
    path = f"{tmp_path}/page"
    gateway("--endpoints", peers.echo().address, "--metrics-addr", f"unix://{path}")
    with net.connect(f"unix:{path}") as client:
        client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert net.read_to_end(client).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("request_head, status", [
    (b"GET / HTTP/1.0\r\n\r\n", 200),
    (b"GET /nothing HTTP/1.0\r\n\r\n", 404),
    (b"POST /metrics HTTP/1.0\r\n\r\n", 405),
    (b"GET /health\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\n\r\n", 400),  # without Host
    (b"GET /health HTTP/2.0\r\n\r\n", 505),
    (b"GET  /health HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\nHost: x\n\n", 400),
    (b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    (b"\0" * 100 + b"\r\n\r\n", 400),
    (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n", 414),
    (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431),
])
def test_answers_to_requests_good_and_bad(watched, request_head, status):
    made, _ = watched
    answer = exchange(made, request_head)
    assert answer == b"reset" or answer.startswith(b"HTTP/1.1 %d " % status)
    # What may be cut off by the reset of bytes it never read must at least be an error.
    assert answer != b"reset" or status in (414, 431)
    assert made.page("/health")[0] == 200


def test_a_request_body_is_not_taken_for_a_request(watched):
    made, _ = watched
    smuggled = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
    answer = exchange(made, head + smuggled, ends=True)
    assert b" 404 " not in answer


def test_byte_by_byte_and_pipelined(watched):
    made, _ = watched
    one = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with net.connect(page_address(made)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in one:
            client.sendall(bytes([byte]))
        client.sendall(one + one + last)
        assert net.read_to_end(client).count(b"HTTP/1.1 200 ") == 4


def test_head_has_no_body(watched):
    made, _ = watched
    answer = exchange(made, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and body == b""


def test_silent_visitors_do_not_keep_others_out_for_ever(watched, peers):
    """Those that never finish a request are thrown out after a while; the gateway itself is not concerned."""
    made, _ = watched
    slow = peers.keep(net.connect(page_address(made), 40))
    slow.sendall(b"GET /health HT")
    for _ in range(80):
        with contextlib.suppress(ConnectionResetError):
            peers.keep(net.connect(page_address(made)))
    assert made.ask(b"x") == "x"
    with contextlib.suppress(ConnectionResetError):
        answer = slow.recv(1000)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
    until(lambda: page_answers(made))


def page_answers(made):
    try:
        return made.page("/health")[0] == 200
    except OSError:
        return False
