"""The relay allocates nothing in steady state: counted from outside, in the real program."""

import pathlib
import struct
import subprocess

import pytest

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
