"""Many connections at once, both ways, with pauses, resets and half-closes; every byte is checked.

RINGWAY_BULK_MB sets the size of each direction of each of the 64 connections: 1024 for the full run."""

import os
import pathlib
import subprocess
import sysconfig

import pytest

CONNECTIONS = 64
MEGABYTES = int(os.environ.get("RINGWAY_BULK_MB", "16"))
LOAD = pathlib.Path(__file__).parent / "load"


@pytest.fixture(scope="session")
def storm(tmp_path_factory):
    """The load program, compiled."""
    program = tmp_path_factory.mktemp("load") / "storm"
    compiler = os.environ.get("CC") or (sysconfig.get_config_var("CC") or "cc").split()[-1]
    subprocess.run(
        [compiler, "-O2", "-Wall", "-Wextra", "-pthread", "-D_GNU_SOURCE", "-o", str(program),
         str(LOAD / "storm.c"), str(LOAD / "plan.c")], check=True)
    return program


def run_storm(storm, gateway, connections, size, seed, *arguments):
    """Runs a storm; returns the bytes that arrived and were right."""
    seconds = 60 + connections * size // 5_000_000
    with subprocess.Popen(
            [str(storm), str(connections), str(size), str(seed), str(seconds)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as load:
        endpoint = f"127.0.0.1:{int(load.stdout.readline())}"
        made = gateway("--endpoints", endpoint, "--health-check", "off", *arguments)
        output, errors = load.communicate(made.address.rpartition(":")[2] + "\n", seconds + 10)
    assert load.returncode == 0, errors or f"the storm took longer than {seconds} s"
    return int(output)


@pytest.mark.parametrize("seed", [int(os.environ.get("RINGWAY_SEED", "1"))])
def test_every_byte_arrives(storm, gateway, seed):
    size = MEGABYTES << 20
    checked = run_storm(storm, gateway, CONNECTIONS, size, seed)
    # Three of four connections run to their end in both directions.
    assert checked >= CONNECTIONS * 3 // 4 * 2 * size


@pytest.mark.parametrize("seed", range(4))
def test_many_short_connections(storm, gateway, seed):
    """Short enough that ends, resets and first bytes meet in the same moment."""
    run_storm(storm, gateway, 400, 3000 * seed + 1, seed)


def test_one_thread(storm, gateway):
    """All connections on one core: buffers run out and must come back."""
    run_storm(storm, gateway, 128, 1 << 20, 7, "--threads", "1")
