"""The defects of etcd's gateway: each is shown absent here, and where it is cheap, present in etcd's own.

See the tests of streams, limits, drain and discovery too."""

import contextlib
import os
import resource
import socket
import subprocess

import pytest

from support import net
from support import gateway as program
from support.waiting import Stopwatch, until


@pytest.fixture
def etcd_gateway(peers):
    """Starts etcd's own gateway; its address and process."""
    started = []

    def start(*endpoints, **options):
        address = f"127.0.0.1:{net.free_port()}"
        process = subprocess.Popen(
            ["etcd", "gateway", "start", "--listen-addr", address, "--endpoints", ",".join(endpoints)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
        started.append(process)

        def listens():
            try:
                net.connect(address).close()
                return True
            except ConnectionRefusedError:
                return False

        until(listens)
        return address, process

    yield start
    for process in started:
        process.kill()
        process.wait()


def one_question(address, timeout=20):
    with net.connect(address, timeout) as client:
        client.sendall(b"?")
        return client.recv(100)


def late_answer(connection):
    """Answers only after the end of the question."""
    question = net.read_to_end(connection)
    connection.sendall(b"answer to " + question)
    connection.close()


def half_closing_client(address):
    with net.connect(address) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        try:
            return net.read_to_end(client)
        except ConnectionResetError:
            return b""


def test_half_close(gateway, peers, etcd_gateway):
    server = peers.server(late_answer)
    assert half_closing_client(gateway("--endpoints", server.address).address) == b"answer to question"
    assert half_closing_client(etcd_gateway(server.address)[0]) == b""


def test_running_out_of_descriptors_does_not_end_it(gateway, peers, etcd_gateway):
    """Row 1: an accept error ends etcd's gateway, with status 0 and without a word."""
    server = peers.named("behind")
    clients = []

    def fill(address, count):
        for _ in range(count):
            with contextlib.suppress(ConnectionResetError):
                clients.append(peers.keep(net.connect(address)))

    made = gateway("--endpoints", server.address, "--health-check", "off")
    limit = made.descriptors + 6
    resource.prlimit(made.pid, resource.RLIMIT_NOFILE, (limit, limit))
    fill(made.address, 40)
    for client in clients:
        client.close()
    assert until(made.ask) == "behind"

    address, process = etcd_gateway(server.address)
    limit = len(os.listdir(f"/proc/{process.pid}/fd")) + 4
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (limit, limit))
    for _ in range(40):
        try:
            fill(address, 1)
        except OSError:
            break
    assert process.wait(20) == 0


@pytest.mark.parametrize("arguments", [[], ["--race-delay", "0"]])
def test_an_endpoint_that_swallows_connection_requests(gateway, peers, arguments):
    """Row 3: etcd's gateway waits until the kernel gives up, two minutes."""
    hole, server = peers.black_hole(), peers.named("behind")
    made = gateway("--endpoints", f"{hole.address},{server.address}", "--health-check", "off", *arguments)
    for _ in range(4):
        watch = Stopwatch()
        assert made.ask() == "behind"
        assert watch.seconds < 2.5


def test_etcds_own_hangs_in_a_black_hole(peers, etcd_gateway):
    hole, server = peers.black_hole(), peers.named("behind")
    address, _ = etcd_gateway(hole.address, server.address)
    hung = 0
    for _ in range(2):
        try:
            one_question(address, 3)
        except TimeoutError:
            hung += 1
    assert hung > 0


@pytest.mark.parametrize("arguments", [[], ["--health-check", "off"], ["--retry-delay", "1h"]])
def test_endpoints_are_used_as_soon_as_they_are_back(gateway, peers, arguments):
    """Row 4: after all endpoints failed once, etcd's gateway refuses everybody for a --retry-delay."""
    server = peers.named("behind")
    made = gateway("--endpoints", server.address, *arguments)
    server.close()
    assert made.ask() == ""
    peers.named("behind", address=server.address)
    watch = Stopwatch()
    assert until(made.ask) == "behind"
    assert watch.seconds < 2


def test_etcds_own_refuses_after_an_outage(peers, etcd_gateway):
    server = peers.named("behind")
    address, _ = etcd_gateway(server.address)
    server.close()

    def ask():
        try:
            return one_question(address)
        except OSError:
            return b""

    assert ask() == b""
    peers.named("behind", address=server.address)
    watch = Stopwatch()
    while watch.seconds < 2.5:
        assert ask() == b""


def test_errors_go_to_stderr():
    """Row 8: etcd writes them to stdout."""
    for arguments in [["--endpoints", "x"], ["--listen-addr", "x"], ["--endpoints", ""]]:
        assert program.run("gateway", "start", *arguments).stdout == ""
        assert program.run("gateway", "start", *arguments, program="etcd").stdout != ""


def test_an_empty_listen_host_is_fine(gateway, peers):
    """Row 8: etcd cannot resolve it."""
    port = net.free_port()
    result = program.run("gateway", "start", "--listen-addr", f":{port}", program="etcd")
    assert (result.returncode, result.stdout.strip()) == (1, "failed to resolve listen host:")
    made = gateway("--endpoints", peers.named("behind").address, "--listen-addr", f":{port}")
    assert made.ask(address=f"127.0.0.1:{port}") == "behind"


def test_an_unresolvable_endpoint_stops_etcds_own():
    """Row 8; Ringway's start is in the tests of the command line."""
    result = program.run(
        "gateway", "start", "--endpoints", "127.0.0.1:2379,no.such.host.invalid:2379", program="etcd")
    assert result.returncode == 1


def test_ipv6_endpoint(gateway, peers, etcd_gateway):
    """Row 10."""
    server = peers.named("six", address="[::1]:0")
    assert gateway("--endpoints", server.address).ask() == "six"
    assert gateway("--endpoints", f"http://{server.address}").ask() == "six"
    try:
        assert one_question(etcd_gateway(server.address)[0]) == b""
    except ConnectionResetError:
        pass
