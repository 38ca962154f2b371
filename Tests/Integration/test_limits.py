"""Limits: descriptors, connections, idle time."""

import os
import pathlib
import resource
import socket
import subprocess
import sys

import pytest

from support import net
from support.waiting import Stopwatch, until

PAUSED = ("accepting paused; new clients wait in the kernel's queue. Raise the descriptor limit or lower "
          "--max-connections")
IDLE = int(os.environ.get("RINGWAY_IDLE", "9000"))
CYCLES = int(os.environ.get("RINGWAY_CHURN", "5"))


def limit_descriptors(made, spare=None):
    """Leaves so many descriptors to open, or as many as before."""
    hard = resource.prlimit(made.pid, resource.RLIMIT_NOFILE)[1]
    soft = hard if spare is None else made.descriptors + spare
    resource.prlimit(made.pid, resource.RLIMIT_NOFILE, (soft, hard))


def refused(address):
    """Whether the gateway resets a new connection before it says anything."""
    try:
        with net.connect(address) as client:
            return net.is_reset(client)
    except ConnectionResetError:
        return True


# Descriptors

def held_until_descriptors_run_out(made, peers):
    """Opens connections until one gets no answer; returns those that got one."""
    held = []
    while True:
        try:
            client = peers.keep(made.connect(timeout=1))
            client.sendall(b"?")
            assert client.recv(100) == b"behind"
        except (TimeoutError, ConnectionResetError):
            return held
        held.append(client)


@pytest.mark.parametrize("spare", [8, 9])
def test_out_of_descriptors_accepting_pauses_and_resumes(gateway, peers, spare):
    server = peers.named("behind")
    made = gateway("--endpoints", server.address, "--health-check", "off", "--threads", "1")
    limit_descriptors(made, spare)
    held = held_until_descriptors_run_out(made, peers)
    assert len(held) >= 3
    waiting = []
    for _ in range(20):
        client = peers.keep(net.connect(made.address))
        client.sendall(b"?")
        waiting.append(client)
    made.wait_for(PAUSED, 5)

    # No spinning while clients wait: a second of this costs next to nothing.
    watch, before = Stopwatch(), made.cpu_seconds
    until(lambda: watch.seconds >= 1, 5)
    assert made.cpu_seconds - before < 0.2

    for client in held:
        client.close()
    for client in waiting:
        assert client.recv(100) == b"behind", "a client that waited was dropped"
        client.close()
    assert made.ask() == "behind"
    limit_descriptors(made)
    assert [made.ask() for _ in range(30)] == ["behind"] * 30


def test_a_small_descriptor_limit_bounds_the_connections(gateway, peers):
    """More clients come than there is room for: no crash, no spin, and service goes on."""
    server = peers.named("behind")
    made = gateway("--endpoints", server.address, launcher=["prlimit", "--nofile=64:64"])
    clients = []
    for _ in range(100):
        try:
            clients.append(peers.keep(made.connect()))
        except ConnectionResetError:
            pass
    watch, before = Stopwatch(), made.cpu_seconds
    until(lambda: watch.seconds >= 1, 5)
    assert made.cpu_seconds - before < 0.2
    for client in clients:
        client.close()
    until(lambda: made.ask() == "behind")


# Connections

def test_max_connections(gateway, peers):
    server = peers.named("behind")
    made = gateway("--endpoints", server.address, "--max-connections", "5", "--metrics-addr", "127.0.0.1:0")
    held = [peers.keep(made.connect()) for _ in range(5)]
    for client in held:
        client.sendall(b"?")
        assert client.recv(100) == b"behind"
    for _ in range(3):
        assert refused(made.address)
    assert made.metric("ringway_gateway_connections_refused_total") == 3
    assert made.wait_for("refused a client")["reason"] == "connection limit reached (--max-connections)"
    held[0].close()
    until(lambda: made.ask() == "behind")
    for client in held[1:]:
        client.sendall(b"?")
        assert client.recv(100) == b"behind"


def test_max_connections_per_source(gateway, peers):
    server = peers.named("behind")
    made = gateway(
        "--endpoints", server.address, "--max-connections-per-source", "2", "--metrics-addr", "127.0.0.1:0")

    def from_source(source):
        client = peers.keep(socket.create_connection(net.split(made.address), 15, (source, 0)))
        client.sendall(b"?")
        return client

    held = {source: [from_source(source) for _ in range(2)] for source in ["127.0.0.2", "127.0.0.3"]}
    for clients in held.values():
        for client in clients:
            assert client.recv(100) == b"behind"
    try:
        assert net.is_reset(from_source("127.0.0.2"))
    except (ConnectionResetError, BrokenPipeError):
        pass
    assert made.metric("ringway_gateway_connections_refused_total") == 1
    assert from_source("127.0.0.4").recv(100) == b"behind"
    held["127.0.0.2"].pop().close()
    until(lambda: made.metric("ringway_gateway_connections_active") == 4)
    assert from_source("127.0.0.2").recv(100) == b"behind"


# Idle time

def test_idle_connections_are_closed(gateway, peers):
    server = peers.named("behind")
    made = gateway("--endpoints", server.address, "--idle-timeout", "400ms", "--metrics-addr", "127.0.0.1:0")
    quiet, busy = made.connect(), made.connect()
    quiet.sendall(b"?")
    assert quiet.recv(100) == b"behind"
    quiet.settimeout(0.05)
    ended, watch = False, Stopwatch()
    while not ended:
        # The busy one talks on and on, for longer than the timeout.
        busy.sendall(b"?")
        assert busy.recv(100) == b"behind"
        try:
            ended = quiet.recv(1) == b""
        except TimeoutError:
            assert watch.seconds < 10
    busy.sendall(b"?")
    assert busy.recv(100) == b"behind"
    assert made.metric("ringway_gateway_connections_ended_total", reason="idle") == 1
    quiet.close()
    busy.close()


# Many

HOLDER = """
import select, socket
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(4096)
print(listener.getsockname()[1], flush=True)
poll, held = select.epoll(), {}
poll.register(listener, select.EPOLLIN)
while True:
    for fd, _ in poll.poll():
        if fd == listener.fileno():
            client = listener.accept()[0]
            held[client.fileno()] = client
            poll.register(client, select.EPOLLIN)
            continue
        try:
            data = held[fd].recv(100)
        except ConnectionError:
            data = b""
        if data:
            held[fd].send(data)
        else:
            poll.unregister(fd)
            held.pop(fd).close()
"""


@pytest.fixture
def holder():
    """A process that keeps thousands of connections and echoes; its address."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    yield f"127.0.0.1:{int(process.stdout.readline())}"
    process.kill()
    process.wait()
    process.stdout.close()


def test_idle_connections_are_small_and_leave_nothing_behind(gateway, holder):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = min(IDLE, (hard - 400) // 2)
    made = gateway("--endpoints", holder, "--metrics-addr", "127.0.0.1:0")
    assert made.ask(b"x") == "x"
    descriptors, memory, after = made.descriptors, made.private_bytes, []
    for cycle in range(CYCLES):
        clients = []
        for _ in range(count):
            client = made.connect()
            client.sendall(b"x")
            clients.append(client)
        for client in clients:
            assert client.recv(10) == b"x"
        assert made.metric("ringway_gateway_connections_active") == count
        assert made.descriptors - descriptors <= 2 * count + 8
        assert (made.private_bytes - memory) / count <= 2048, f"cycle {cycle}"
        for client in clients:
            client.close()
        until(lambda: made.metric("ringway_gateway_connections_active") == 0)
        until(lambda: made.descriptors <= descriptors + 4, what="descriptors as before")
        after.append(made.private_bytes)
    assert after[-1] <= after[0] + (2 << 20), after
    assert pathlib.Path(f"/proc/{made.pid}").exists()
