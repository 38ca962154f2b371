"""The command line: etcd's flags, statuses and texts, and what Ringway adds."""

import re
import socket
import subprocess

import pytest

from support import gateway as program
from support.net import free_port

DEFAULTS = {
    "--discovery-srv": None, "--discovery-srv-name": None, "--endpoints": "[127.0.0.1:2379]",
    "--insecure-discovery": None, "--listen-addr": "127.0.0.1:23790", "--retry-delay": "1m0s",
    "--trusted-ca-file": None}


def both(*arguments):
    """The same command by etcd and by Ringway."""
    return [program.run("gateway", "start", *arguments, program=name) for name in ["etcd", program.BINARY]]


def last_line(text):
    return text.strip().splitlines()[-1]


@pytest.mark.parametrize("arguments", [
    ["--bogus"],
    ["--endpoints"],
    ["--retry-delay=5"],
    ["--retry-delay=x"],
    ["--retry-delay="],
    ["--insecure-discovery=x"],
    ['--endpoints="x'],
    ["-x"],
])
def test_bad_flags_are_refused_in_etcds_words(arguments):
    etcd, ringway = both(*arguments)
    assert etcd.returncode == ringway.returncode == 1
    assert ringway.stdout == etcd.stdout == ""
    assert ringway.stderr.splitlines()[0] == etcd.stderr.splitlines()[0]
    assert last_line(ringway.stderr) == last_line(etcd.stderr)


@pytest.mark.parametrize("arguments", [
    ["--endpoints=no.such.host.invalid:2379"],
    ["--endpoints=127.0.0.1"],
    ["--endpoints="],
    ["--listen-addr=bogus"],
    ["--listen-addr=256.1.1.1:1"],
    ["--listen-addr=127.0.0.1:23999", "--endpoints=127.0.0.1:23999"],
    ["--listen-addr=127.0.0.1:23999", "--endpoints=localhost:23999"],
])
def test_what_cannot_work_is_refused_in_etcds_words(arguments):
    etcd, ringway = both(*arguments)
    assert etcd.returncode == ringway.returncode == 1
    # etcd says it on stdout; an error belongs on stderr.
    assert etcd.stdout and not etcd.stderr
    assert ringway.stdout == ""
    assert etcd.stdout.strip() in ringway.stderr


@pytest.mark.parametrize("name", ["127.0.0.1", "0.0.0.0", "[::1]"])
def test_address_in_use(name):
    port = free_port()
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    with socket.socket(family) as taken:
        taken.bind((name.strip("[]"), port))
        taken.listen()
        etcd, ringway = both("--listen-addr", f"{name}:{port}")
    assert etcd.returncode == ringway.returncode == 1
    text = f"listen tcp {name}:{port}: bind: address already in use"
    assert last_line(etcd.stderr) == text
    assert last_line(ringway.stderr) == text


def test_a_second_ringway_on_the_port_is_refused(gateway, peers):
    first = gateway("--endpoints", peers.named("behind").address)
    second = program.run("gateway", "start", "--listen-addr", first.address)
    assert second.returncode == 1
    assert "address already in use" in last_line(second.stderr)
    assert first.ask() == "behind"


def test_a_unix_socket_in_use_is_refused_and_a_stale_one_is_not(gateway, peers, tmp_path):
    server = peers.named("behind")
    path = f"unix:{tmp_path}/listen"
    first = gateway("--endpoints", server.address, "--listen-addr", path, expect=None)
    assert program.run("gateway", "start", "--listen-addr", path).returncode == 1
    assert first.ask(address=path) == "behind"
    first.process.kill()
    first.wait()
    assert gateway("--endpoints", server.address, "--listen-addr", path).ask(address=path) == "behind"


def test_etcds_flags_have_etcds_defaults():
    etcd, ringway = both("--help")
    assert etcd.returncode == ringway.returncode == 0
    for name, default in DEFAULTS.items():
        for text in [etcd.stdout, ringway.stdout]:
            line = next(line for line in text.splitlines() if line.strip().startswith(name + " ")
                        or line.strip() == name)
            if default:
                # Ringway's --listen-addr takes a list, so its default stands in brackets.
                assert re.search(rf'\(default ["[]?{re.escape(default.strip("[]"))}["\]]?\)', line)


@pytest.mark.parametrize("arguments", [["gateway"], ["gateway", "nonsense"], ["gateway", "start", "-h"]])
def test_help_is_no_failure(arguments):
    for name in ["etcd", program.BINARY]:
        result = program.run(*arguments, program=name)
        assert result.returncode == 0
        assert "Usage:" in result.stdout
        assert result.stderr == ""


def test_flags_before_start_and_words_after_it(gateway, peers, backend):
    server = peers.named("behind")
    process = subprocess.Popen(
        [program.BINARY, "gateway", f"--endpoints={server.address}", "start", "--listen-addr", "127.0.0.1:0",
         "--io-backend", backend, "extra", "words"], stderr=subprocess.PIPE, text=True)
    try:
        assert any(program.READY in line for line in process.stderr)
    finally:
        process.terminate()
        assert process.wait(20) == 0
        process.stderr.close()


def test_works_under_the_name_etcd(gateway, peers, tmp_path):
    link = tmp_path / "etcd"
    link.symlink_to(program.BINARY)
    assert gateway("--endpoints", peers.named("behind").address, program=str(link)).ask() == "behind"


def test_check(tmp_path):
    good = program.run("check", "gateway", "start", "--endpoints", "10.0.0.1:2379", "--retry-delay", "2s")
    assert good.returncode == 0
    assert "valid" in good.stdout
    for bad in [["--retry-delay", "2"], ["--endpoints", "x"], ["--listen-addr", "x"], ["--threads", "-1"],
                ["--endpoint-weights", "1,2"], ["--metrics-addr", "https://x:1"],
                ["--health-interval", "1ms"]]:
        result = program.run("check", "gateway", "start", *bad)
        assert result.returncode == 1, bad
        assert result.stderr
    assert program.run("check").returncode == 1


def test_version():
    for arguments in [["version"], ["--version"]]:
        result = program.run(*arguments)
        assert result.returncode == 0
        assert result.stdout.startswith("ringway ")


def test_unknown_commands_fail():
    result = program.run("serve")
    assert result.returncode == 1
    assert "Error:" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["--version"], ["--name", "m0"], ["--endpoints=a:1", "gateway", "start"]])
def test_no_etcd_seems_to_start_under_its_name(arguments, tmp_path):
    link = tmp_path / "etcd"
    link.symlink_to(program.BINARY)
    result = program.run(*arguments, program=str(link))
    assert result.returncode == 1
    assert result.stdout == ""
    assert "this 'etcd' is Ringway" in result.stderr


@pytest.mark.parametrize("listen", ["0.0.0.0:{}", ":{}", "[::]:{}"])
def test_loop_guard_sees_through_unspecified_addresses(listen):
    port = free_port()
    result = program.run(
        "gateway", "start", "--listen-addr", listen.format(port), "--endpoints", f"127.0.0.1:{port}",
        seconds=10)
    assert result.returncode == 1
    assert "should not resolve to the gateway listen addr" in last_line(result.stderr)


def test_same_port_on_another_host_is_no_loop(gateway, peers):
    server = peers.named("behind", address="127.0.0.2:0")
    assert gateway(
        "--endpoints", server.address, "--listen-addr", f"127.0.0.1:{server.port}").ask() == "behind"


def test_one_unresolvable_endpoint_beside_a_good_one(gateway, peers):
    made = gateway("--endpoints", f"no.such.host.invalid:2379,{peers.named('behind').address}")
    assert made.find("failed to resolve endpoint host")
    assert [made.ask() for _ in range(4)] == ["behind"] * 4


def test_etcd_variables_do_nothing(gateway, peers):
    made = gateway(
        "--endpoints", peers.named("behind").address,
        env={"ETCD_ENDPOINTS": "127.0.0.1:1", "ETCD_LISTEN_ADDR": "bogus", "ETCD_RETRY_DELAY": "x"})
    assert made.ask() == "behind"
