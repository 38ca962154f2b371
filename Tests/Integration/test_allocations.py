"""Relay and batcher allocate nothing in steady state: counted from outside, in the real program."""

import pathlib
import struct
import subprocess

import pytest

from support.beater import Beater
from support.grpc_calls import Caller
from support.proxy_state import page, sample
from support.waiting import until

COUNTER = pathlib.Path(__file__).parents[2] / "Benchmarks" / "Allocations" / "count_malloc.c"
CONNECTIONS = 32
ROUNDS = 300


@pytest.fixture(scope="session")
def counting_library(tmp_path_factory):
    library = tmp_path_factory.mktemp("count") / "count_malloc.so"
    subprocess.run(
        ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(COUNTER)], check=True)
    return library


def round_trips(clients, rounds, message):
    for _ in range(rounds):
        for client in clients:
            client.sendall(message)
        for client in clients:
            left = len(message)
            while left:
                left -= len(client.recv(left))


@pytest.mark.parametrize("size", [64, 3000])
def test_round_trips_allocate_nothing(gateway, peers, counting_library, tmp_path, size):
    counts = tmp_path / "count"
    server = peers.echo()
    made = gateway(
        "--endpoints", server.address, "--health-check", "off",
        env={"LD_PRELOAD": str(counting_library), "MALLOC_COUNT_FILE": str(counts)})
    clients = [peers.keep(made.connect(timeout=10)) for _ in range(CONNECTIONS)]
    message = bytes(size)
    round_trips(clients, 50, message)
    before = struct.unpack("Q", counts.read_bytes())[0]
    round_trips(clients, ROUNDS, message)
    after = struct.unpack("Q", counts.read_bytes())[0]
    assert before > 0, "the counting library was not loaded"
    # What is left is the control thread's timers, some twenty a second; one allocation a round trip would be 9,600.
    assert after - before <= CONNECTIONS * ROUNDS // 40


def test_heartbeats_allocate_nothing(proxy, etcd, counting_library, tmp_path):
    """Over two cores, each lease on several streams; a window's worth of credit is given back on the way."""
    counts = tmp_path / "count"
    made = proxy(
        "--endpoints", etcd.client, "--threads", 2, "--health-interval", "10s",
        env={"LD_PRELOAD": str(counting_library), "MALLOC_COUNT_FILE": str(counts)})
    clients = [Beater(made.address) for _ in range(8)]
    for client in clients:
        for stream in range(20):
            client.open([0x700000 + stream * 3 + lease for lease in range(5)])
    # More rounds than batches may have shapes, so that everything has once been as large as it gets.
    rounds = 100
    for count in (rounds, rounds):
        before = struct.unpack("Q", counts.read_bytes())[0]
        for _ in range(count):
            for client in clients:
                client.check()
                client.beat()
        after = struct.unpack("Q", counts.read_bytes())[0]
    for client in clients:
        client.check()
        client.close()
    assert before > 0, "the counting library was not loaded"
    # 80,000 heartbeats. What is left is timers.
    print(after - before)
    assert after - before <= 800


def test_cached_reads_allocate_nothing(proxy, etcd, counting_library, tmp_path):
    counts = tmp_path / "count"
    made = proxy(
        "--endpoints", etcd.client, "--threads", 1, "--health-interval", "10s",
        env={"LD_PRELOAD": str(counting_library), "MALLOC_COUNT_FILE": str(counts)})

    def hits():
        return sample(page(made, "/proxy/metrics"), "ringway_cache_hits_total")

    with Caller(made.address) as client:
        client.put(b"counted", b"x" * 300)

        def read():
            assert client.ok("KV/Range", key=b"counted", serializable=True).count == 1

        def warm():
            start = hits()
            for _ in range(100):
                read()
            return hits() - start >= 100

        until(warm, what="answers from the cache")
        start = hits()
        before = struct.unpack("Q", counts.read_bytes())[0]
        for _ in range(4000):
            read()
        after = struct.unpack("Q", counts.read_bytes())[0]
        # Once in ten seconds one of them asks etcd.
        assert hits() - start >= 3990
    assert before > 0, "the counting library was not loaded"
    print(after - before)
    assert after - before <= 400
