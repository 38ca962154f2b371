"""A cluster of three under load, and what its clients notice when members fail."""

import os
import shutil
import signal
import time

import pytest

from support import net
from support.etcds import Cluster
from support.faults import QUESTIONS, Load, Namespace
from support.waiting import Stopwatch, until

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("iptables"), reason="needs root, iproute2 and iptables")

LONGEST = 2.5  # seconds that a client may be without an answer after any one fault
BACK = 2.0     # seconds until a healthy member is used again


@pytest.fixture(scope="module")
def namespace():
    made = Namespace()
    yield made
    made.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, namespace):
    """Three members; the last lives in the namespace."""
    outside = (namespace.outside, ())
    made = Cluster(
        tmp_path_factory.mktemp("cluster"), [outside, outside, (namespace.inside, namespace.launcher)])
    yield made
    made.end()


@pytest.fixture
def made(gateway, cluster):
    cluster.wait_until_healthy()
    return gateway("--endpoints", cluster.endpoints, "--metrics-addr", "127.0.0.1:0")


def is_up(made, member):
    return made.metric("ringway_gateway_endpoint_state", endpoint=member.client, state="up") == 1


def comes_back(made, member):
    """Waits until the member is healthy, and then for the gateway to know it."""
    until(member.is_healthy, 30, pause=0.02)
    watch = Stopwatch()
    until(lambda: is_up(made, member))
    assert watch.seconds < BACK, made.log


def is_used_again(made, member):
    comes_back(made, member)
    before = made.metric("ringway_gateway_endpoint_connections_total", endpoint=member.client)
    until(lambda: made.metric("ringway_gateway_endpoint_connections_total", endpoint=member.client) > before)


def test_killed_member(made, cluster):
    with Load(made.address) as load:
        until(load.more())
        for member in cluster.members:
            member.kill()
            killed = time.monotonic()
            made.wait_for("deactivated endpoint", address=member.client)
            until(load.more())
            assert load.failures(after=killed) == []
            member.start()
            is_used_again(made, member)
            cluster.wait_until_healthy()
            until(load.more())
    assert load.longest_outage() <= LONGEST


def test_stopped_member(made, cluster):
    with Load(made.address) as load:
        until(load.more())
        for member in cluster.members:
            stopped = time.monotonic()
            member.signal(signal.SIGSTOP)
            try:
                made.wait_for("deactivated endpoint", address=member.client)
                noticed = time.monotonic()
                until(load.more())
                assert load.failures(after=noticed) == []
                assert noticed - stopped < LONGEST
            finally:
                member.signal(signal.SIGCONT)
            is_used_again(made, member)
            cluster.wait_until_healthy()
            until(load.more())
    assert load.longest_outage() <= LONGEST


def test_member_in_a_black_hole(made, cluster, namespace):
    member = cluster.members[2]
    with Load(made.address) as load:
        until(load.more())
        namespace.drop(net.split(member.client)[1])
        try:
            made.wait_for("deactivated endpoint", address=member.client)
            noticed = time.monotonic()
            until(load.more())
            assert load.failures(after=noticed) == []
        finally:
            namespace.let_through()
        is_used_again(made, member)
        until(load.more())
    assert load.longest_outage() <= LONGEST


@pytest.mark.parametrize("fault", ["stopped", "black hole"])
def test_idle_connections_to_a_hung_member_are_ended(made, cluster, namespace, peers, fault):
    """Their clients would wait for ever; those of other members stay."""
    member = cluster.members[2]
    question = QUESTIONS[0].replace(b"Connection: close\r\n", b"")
    clients = []
    for _ in range(9):
        client = peers.keep(made.connect())
        client.sendall(question)
        assert b" 200 OK" in client.recv(4096)
        clients.append(client)
    held = made.metric("ringway_gateway_endpoint_connections_active", endpoint=member.client)
    assert held >= 2
    if fault == "stopped":
        member.signal(signal.SIGSTOP)
    else:
        namespace.drop(net.split(member.client)[1])
    try:
        line = made.wait_for("endpoint does not answer; ending its connections", address=member.client)
        assert line["connections"] >= held
        until(lambda: made.metric("ringway_gateway_endpoint_connections_active", endpoint=member.client) == 0)
        ended = 0
        for client in clients:
            try:
                client.sendall(question)
                ended += b" 200 OK" not in client.recv(4096)
            except OSError:
                ended += 1
        assert ended == held
    finally:
        member.signal(signal.SIGCONT)
        namespace.let_through()
    comes_back(made, member)


@pytest.mark.parametrize("fault", ["killed", "stopped"])
def test_outage_of_the_whole_cluster(made, cluster, fault):
    with Load(made.address) as load:
        until(load.more())
        for member in cluster.members:
            member.kill() if fault == "killed" else member.signal(signal.SIGSTOP)
        for member in cluster.members:
            made.wait_for("deactivated endpoint", address=member.client)
        assert made.page("/health")[0] == 503
        for member in cluster.members:
            member.start() if fault == "killed" else member.signal(signal.SIGCONT)
        until(lambda: any(member.answers() for member in cluster.members), 30)
        watch, served = Stopwatch(), load.more(1)
        until(served)
        assert watch.seconds < BACK
        for member in cluster.members:
            is_used_again(made, member)
        until(load.more())
    assert made.page("/health")[0] == 200
