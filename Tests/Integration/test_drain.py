"""How it ends, and what the signals do."""

import signal
import subprocess
import threading

import pytest

from support import gateway as program
from support import net
from support.waiting import Stopwatch, until

DRAINING = "shutting down; a second signal ends at once"


def talking(made, peers):
    """A connection on which an answer has come: idle from now on."""
    client = peers.keep(made.connect())
    client.sendall(b"?")
    assert client.recv(100) == b"behind"
    return client


class Slow:
    """A server that answers each connection when the test says so."""

    def __init__(self, peers):
        self.asked, self.go = threading.Event(), threading.Event()
        self.server = peers.server(self.serve)

    def serve(self, connection):
        if connection.recv(100):
            self.asked.set()
            self.go.wait(30)
            connection.sendall(b"late answer")
            connection.recv(1)
            connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_at_once_without_connections(gateway, peers, number):
    made = gateway("--endpoints", peers.named("behind").address)
    watch = Stopwatch()
    made.signal(number)
    assert made.wait() == 0
    assert watch.seconds < 2
    assert made.find(DRAINING) and made.find("stopped")


def test_idle_connections_are_closed_in_order_and_soon(gateway, peers):
    made = gateway("--endpoints", peers.named("behind").address, "--drain-timeout", "30s")
    clients = [talking(made, peers) for _ in range(20)]
    watch = Stopwatch()
    made.signal(signal.SIGTERM)
    for client in clients:
        assert client.recv(1) == b""
    assert made.wait() == 0
    assert watch.seconds < 5


def test_a_question_under_way_gets_its_answer(gateway, peers):
    slow = Slow(peers)
    made = gateway("--endpoints", slow.server.address, "--health-check", "off", "--drain-timeout", "30s")
    client = peers.keep(made.connect())
    client.sendall(b"question")
    assert slow.asked.wait(15)
    made.signal(signal.SIGTERM)
    made.wait_for(DRAINING)
    watch = Stopwatch()
    until(lambda: watch.seconds > 1)  # longer than an idle one is left alone
    assert not made.has_ended
    slow.go.set()
    assert client.recv(100) == b"late answer"
    assert client.recv(100) == b""
    assert made.wait() == 0


def test_nobody_is_taken_in_while_it_drains(gateway, peers):
    """Every thread's listener is closed at once: a client that could only wait for the end goes elsewhere."""
    slow = Slow(peers)
    made = gateway(
        "--endpoints", slow.server.address, "--health-check", "off", "--drain-timeout", "30s", "--threads",
        "3")
    client = peers.keep(made.connect())
    client.sendall(b"question")
    assert slow.asked.wait(15)
    made.signal(signal.SIGTERM)
    made.wait_for(DRAINING)
    until(lambda: all(refuses(made.address) for _ in range(20)), 5)
    slow.go.set()
    assert client.recv(100) == b"late answer"


def refuses(address):
    try:
        net.connect(address).close()
        return False
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        # It was in the listener's queue when that closed.
        return False


def test_the_deadline_ends_what_does_not_end(gateway, peers):
    slow = Slow(peers)
    made = gateway("--endpoints", slow.server.address, "--health-check", "off", "--drain-timeout", "700ms")
    client = peers.keep(made.connect())
    client.sendall(b"question")
    assert slow.asked.wait(15)
    watch = Stopwatch()
    made.signal(signal.SIGTERM)
    assert made.wait() == 0
    assert 0.6 < watch.seconds < 5
    slow.go.set()


def test_a_second_signal_ends_at_once(gateway, peers):
    slow = Slow(peers)
    made = gateway("--endpoints", slow.server.address, "--health-check", "off", "--drain-timeout", "1h")
    client = peers.keep(made.connect())
    client.sendall(b"question")
    assert slow.asked.wait(15)
    made.signal(signal.SIGTERM)
    made.wait_for(DRAINING)
    assert not made.has_ended
    watch = Stopwatch()
    made.signal(signal.SIGTERM)
    assert made.wait() == 0
    assert watch.seconds < 5
    slow.go.set()


def test_a_long_transfer_is_finished(gateway, peers):
    data = bytes(range(256)) * 40_000
    started = threading.Event()

    def serve(connection):
        connection.recv(1)
        connection.sendall(data[:100_000])
        started.set()
        connection.sendall(data[100_000:])
        connection.close()

    made = gateway(
        "--endpoints", peers.server(serve).address, "--health-check", "off", "--drain-timeout", "30s")
    client = peers.keep(made.connect())
    client.sendall(b"?")
    assert started.wait(15)
    made.signal(signal.SIGTERM)
    made.wait_for(DRAINING)
    assert net.read_to_end(client) == data
    assert made.wait() == 0


def test_clients_in_the_queue_are_served_before_the_end(gateway, peers):
    """They have connected as far as they know: a reset would be a failure for no reason."""
    made = gateway("--endpoints", peers.named("behind").address, "--drain-timeout", "10s")
    made.signal(signal.SIGSTOP)
    clients = []
    for _ in range(30):
        client = peers.keep(net.connect(made.address))
        client.sendall(b"?")
        clients.append(client)
    made.signal(signal.SIGTERM)
    made.signal(signal.SIGCONT)
    for client in clients:
        assert client.recv(100) == b"behind"
        assert client.recv(100) == b""
    assert made.wait() == 0


def test_hangup_does_not_disturb_connections(gateway, peers):
    made = gateway("--endpoints", peers.named("behind").address)
    client = talking(made, peers)
    made.signal(signal.SIGHUP)
    made.wait_for("reloading: resolving endpoints anew")
    client.sendall(b"?")
    assert client.recv(100) == b"behind"
    assert made.ask() == "behind"


def test_hangup_resolves_again(gateway, peers, dns):
    """The name's old answer is good for an hour, but the operator knows better."""
    first = peers.named("first", address="127.0.0.2:0")
    peers.named("second", address=f"127.0.0.3:{first.port}")
    dns.set("member.test", "A", ["127.0.0.2"], ttl=3600)
    made = gateway("--endpoints", f"member.test:{first.port}", "--dns-servers", dns.address)
    assert made.ask() == "first"
    dns.set("member.test", "A", ["127.0.0.3"], ttl=3600)
    assert made.ask() == "first"
    made.signal(signal.SIGHUP)
    made.wait_for("endpoints changed")
    assert until(lambda: made.ask() == "second")


def test_broken_pipe_of_the_log_is_no_end(gateway, peers):
    """Whoever reads the log may go away."""
    port = net.free_port()
    server = peers.named("behind")
    process = subprocess.Popen(
        [program.BINARY, "gateway", "start", "--endpoints", server.address, "--access-log", "--listen-addr",
         f"127.0.0.1:{port}"], stderr=subprocess.PIPE)
    try:
        while b"ready to proxy" not in process.stderr.readline():
            pass
        process.stderr.close()
        for _ in range(20):
            with net.connect(f"127.0.0.1:{port}") as client:
                client.sendall(b"?")
                assert client.recv(100) == b"behind"
    finally:
        process.terminate()
        assert process.wait(15) == 0
