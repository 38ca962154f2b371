"""How endpoints are judged that answer, but not as they should."""

import socket
import threading

import pytest

from support import gateway as program
from support.waiting import Stopwatch, until


class Member:
    """Behaves like an etcd's HTTP side. `health` is its answer to /health; None keeps silent."""

    def __init__(self, name, peers):
        self.name = name
        self.health = 200
        self.probes = 0
        self.server = peers.server(self.serve)
        self.address = self.server.address

    def serve(self, connection):
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
            while b"\r\n\r\n" in data:
                head, _, data = data.partition(b"\r\n\r\n")
                if not self.answer(connection, head):
                    return

    def answer(self, connection, head):
        status = 200
        if head.startswith(b"GET /health"):
            self.probes += 1
            status = self.health
            if status is None:
                return False
        body = self.name.encode()
        connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
        return True


def ask(made, client=None):
    """Which member answers."""
    own = client or made.connect()
    own.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = own.recv(4096).decode()
    if client is None:
        own.close()
    return answer[-1:]


def state(made, member):
    for name in ["up", "sick", "down"]:
        if made.metric("ringway_gateway_endpoint_state", endpoint=member.address, state=name) == 1:
            return name
    return None


@pytest.fixture
def three(peers):
    return [Member(letter, peers) for letter in "abc"]


@pytest.fixture
def made(gateway, three):
    return gateway(
        "--endpoints", ",".join(member.address for member in three), "--metrics-addr", "127.0.0.1:0",
        "--health-interval", "200ms", "--health-check", "http")


def test_a_member_that_says_it_is_not_healthy_gets_no_new_clients(made, three):
    three[1].health = 503
    until(lambda: state(made, three[1]) == "sick")
    assert {ask(made) for _ in range(12)} == {"a", "c"}
    three[1].health = 200
    until(lambda: state(made, three[1]) == "up")
    assert {ask(made) for _ in range(12)} == {"a", "b", "c"}


def test_members_are_used_though_all_say_they_are_not_healthy(made, three):
    """An alarm of the whole cluster: reads still work, so clients are still served."""
    for member in three:
        member.health = 503
        until(lambda: state(made, member) == "sick")
    assert {ask(made) for _ in range(12)} == {"a", "b", "c"}
    assert made.page("/health")[0] == 200


def test_a_recovered_member_comes_back_soon_though_it_has_traffic(gateway, three, peers):
    """With the default intervals: clients that stayed on it while it was sick must not delay its return."""
    made = gateway(
        "--endpoints", ",".join(member.address for member in three), "--metrics-addr", "127.0.0.1:0")
    clients = [peers.keep(made.connect()) for _ in range(6)]
    stopped = threading.Event()

    def talk():
        while not stopped.wait(0.02):
            for client in clients:
                ask(made, client)

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        three[1].health = 503
        until(lambda: state(made, three[1]) == "sick")
        three[1].health = 200
        watch = Stopwatch()
        until(lambda: state(made, three[1]) == "up")
        assert watch.seconds < 2
    finally:
        stopped.set()
        talker.join()


def test_a_member_that_accepts_and_says_nothing_is_taken_out(made, three, peers):
    three[0].server.close()
    peers.server(lambda connection: threading.Event().wait(30), address=three[0].address)
    until(lambda: state(made, three[0]) == "down")
    assert {ask(made) for _ in range(8)} == {"b", "c"}


def test_health_that_is_slow_to_come_is_no_health(made, three):
    """The process answers, its /health does not: alive, but nothing for new clients while others are."""
    three[2].health = None
    until(lambda: state(made, three[2]) == "sick")
    assert {ask(made) for _ in range(8)} == {"a", "b"}


def test_probes_off(gateway, three):
    made = gateway(
        "--endpoints", ",".join(member.address for member in three), "--health-check", "off",
        "--health-interval", "10ms")
    assert {ask(made) for _ in range(9)} == {"a", "b", "c"}
    assert sum(member.probes for member in three) == 0


def test_tcp_probes_send_nothing(gateway, peers):
    server = peers.server()
    gateway("--endpoints", server.address, "--health-check", "tcp", "--health-interval", "20ms")
    for index in range(3):
        connection = server.connection(index)
        connection.settimeout(15)
        assert connection.recv(1) == b""


def test_tls_is_learned_from_the_first_byte(gateway, peers):
    """Members that speak TLS get no plain text from probes."""
    seen = []

    def serve(connection):
        while data := connection.recv(65536):
            seen.append(data)
            connection.sendall(b"\x15\x03\x03\x00\x02\x02\x28")

    made = gateway("--endpoints", peers.server(serve).address, "--health-interval", "50ms")
    with made.connect() as client:
        client.sendall(b"\x16\x03\x01\x00\x01\x00")
        assert client.recv(7) == b"\x15\x03\x03\x00\x02\x02\x28"
        client.shutdown(socket.SHUT_RDWR)
    until(lambda: len(seen) >= 3)
    assert seen and all(data[:1] == b"\x16" for data in seen)
