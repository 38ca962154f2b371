"""The PROXY protocol, from clients and to endpoints."""

import pytest

from support import net, proxy_header
from support.waiting import until

CLIENT, WANTED = ("203.0.113.7", 4711), ("198.51.100.9", 2379)
CLIENT6, WANTED6 = ("2001:db8::7", 4711), ("2001:db8::9", 2379)


def headers():
    return {
        "v1": proxy_header.line(CLIENT, WANTED), "v1-six": proxy_header.line(CLIENT6, WANTED6),
        "v2": proxy_header.block(CLIENT, WANTED), "v2-six": proxy_header.block(CLIENT6, WANTED6),
        "v2-tlv": proxy_header.block(CLIENT, WANTED, b"\x04\x00\x20" + bytes(32)),
    }


def send_split(client, data, size):
    for at in range(0, len(data), size):
        client.sendall(data[at:at + size])


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("kind", list(headers()))
def test_header_is_taken_off_and_believed(gateway, peers, kind, size):
    server = peers.echo()
    made = gateway("--endpoints", server.address, "--proxy-protocol-in", "on", "--access-log")
    with made.connect() as client:
        client.setsockopt(6, 1, 1)
        send_split(client, headers()[kind] + b"hello", size)
        assert net.read_exactly(client, 5) == b"hello"
    source = "[%s]:%d" % CLIENT6 if "six" in kind else "%s:%d" % CLIENT
    assert made.wait_for("connection")["client"] == source


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", proxy_header.LOCAL])
def test_header_without_addresses(gateway, peers, header):
    made = gateway("--endpoints", peers.echo().address, "--proxy-protocol-in", "on", "--access-log")
    with made.connect() as client:
        client.sendall(header + b"hello")
        assert net.read_exactly(client, 5) == b"hello"
        own = "%s:%d" % client.getsockname()
    assert made.wait_for("connection")["client"] == own


@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\n\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n",
    b"PROXY TCP4 1.2.3.4\r\n",
    b"PROXY TCP4 ::1 ::1 1 2\r\n",
    b"PROXY " + b"x" * 200,
    proxy_header.SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
    proxy_header.SIGNATURE + b"\x21\x11\x00\x02" + bytes(2),
    b"\x16\x03\x01\x02\x00",
])
def test_invalid_header_is_closed_and_reaches_nobody(gateway, peers, data):
    server = peers.server()
    made = gateway(
        "--endpoints", server.address, "--proxy-protocol-in", "on", "--health-check", "off", "--metrics-addr",
        "127.0.0.1:0")
    with made.connect() as client:
        client.sendall(data)
        try:
            assert client.recv(100) == b""
        except ConnectionResetError:
            pass

    # The client may know before the proxy has counted it.
    until(lambda: made.metric("ringway_gateway_connections_ended_total", reason="bad_proxy_header") == 1)
    assert server.connections == []


def test_end_before_the_header_is_complete(gateway, peers):
    server = peers.server()
    made = gateway("--endpoints", server.address, "--proxy-protocol-in", "on", "--health-check", "off")
    with made.connect() as client:
        client.sendall(b"PROXY TCP4 1.2.3.4")
        client.shutdown(1)
        try:
            assert client.recv(100) == b""
        except ConnectionResetError:
            pass
    assert server.connections == []


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
def test_header_for_the_endpoint(gateway, peers, version, listen):
    server = peers.server()
    made = gateway(
        "--endpoints", server.address, "--proxy-protocol-out", version, "--listen-addr", listen,
        "--health-check", "off")
    with made.connect() as client:
        client.sendall(b"payload")
        client.shutdown(1)
        source, destination, rest = proxy_header.parse(net.read_to_end(server.connection()))
        assert source == client.getsockname()[:2]
        assert destination == client.getpeername()[:2]
        assert rest == b"payload"


def test_header_goes_first_even_if_the_server_speaks_first(gateway, peers):
    server = peers.server()
    made = gateway(
        "--endpoints", server.address, "--proxy-protocol-out", "v2", "--health-check", "off")
    with made.connect() as client:
        far = server.connection()
        data = net.read_exactly(far, 28)
        assert proxy_header.parse(data)[0] == client.getsockname()
        far.sendall(b"greeting")
        assert net.read_exactly(client, 8) == b"greeting"


@pytest.mark.parametrize("into", ["v1", "v2", "v2-six"])
@pytest.mark.parametrize("out", ["v1", "v2"])
def test_chain_of_proxies_keeps_the_client(gateway, peers, into, out):
    server = peers.server()
    made = gateway(
        "--endpoints", server.address, "--proxy-protocol-in", "on", "--proxy-protocol-out", out,
        "--health-check", "off")
    with made.connect() as client:
        client.sendall(headers()[into] + b"payload")
        client.shutdown(1)
        parsed = proxy_header.parse(net.read_to_end(server.connection()))
    assert parsed == ((CLIENT6, WANTED6) if "six" in into else (CLIENT, WANTED)) + (b"payload",)
