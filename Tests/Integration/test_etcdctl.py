"""etcd's own client works through the gateway as it does without."""

import json
import os
import subprocess

import pytest

from support.etcds import etcdctl
from support.net import free_port
from support.waiting import until


@pytest.fixture(params=["plain", "tls"])
def way(request, gateway):
    """A gateway in front of an etcd, and etcdctl's flags for it."""
    member = request.getfixturevalue("etcd" if request.param == "plain" else "tls_etcd")
    flags = [] if request.param == "plain" else request.getfixturevalue("tls_flags")
    return gateway("--endpoints", member.client), flags


def test_put_get_delete(way):
    gateway, flags = way
    value = "v" * 100_000
    assert etcdctl(gateway.address, "put", "key", stdin=value, flags=flags) == "OK\n"
    assert etcdctl(gateway.address, "get", "--print-value-only", "key", flags=flags) == value + "\n"
    assert etcdctl(gateway.address, "del", "key", flags=flags) == "1\n"
    assert etcdctl(gateway.address, "get", "key", flags=flags) == ""


def test_transaction(way):
    gateway, flags = way
    etcdctl(gateway.address, "put", "account", "10", flags=flags)
    script = 'value("account") = "10"\n\nput account 20\n\nput account 0\n\n'
    assert "SUCCESS" in etcdctl(gateway.address, "txn", stdin=script, flags=flags)
    assert "FAILURE" in etcdctl(gateway.address, "txn", stdin=script, flags=flags)
    assert etcdctl(gateway.address, "get", "--print-value-only", "account", flags=flags) == "0\n"


def test_watch_sees_every_put_in_order(way, tmp_path):
    gateway, flags = way
    output = tmp_path / "events"
    with open(output, "wb") as file:
        watch = subprocess.Popen(
            ["etcdctl", "--endpoints", gateway.address, *flags, "watch", "--prefix", "seen/"], stdout=file,
            env={**os.environ, "ETCDCTL_API": "3"})
    try:
        # The watch is there as soon as it shows a first put.
        def shows_first():
            etcdctl(gateway.address, "put", "seen/first", "x", flags=flags)
            return b"seen/first" in output.read_bytes()

        until(shows_first, pause=0.05)
        for number in range(5):
            etcdctl(gateway.address, "put", f"seen/{number}", "x", flags=flags)
        until(lambda: b"seen/4" in output.read_bytes(), what="the last event")
        lines = output.read_text().split()
        assert [line for line in lines if line.startswith("seen/") and line != "seen/first"] == [
            f"seen/{number}" for number in range(5)]
    finally:
        watch.kill()
        watch.wait()


def test_lease_grant_and_keep_alive(way):
    gateway, flags = way
    lease = etcdctl(gateway.address, "lease", "grant", "60", flags=flags).split()[1]
    answer = etcdctl(gateway.address, "lease", "keep-alive", "--once", lease, flags=flags)
    assert "keepalived with TTL(60)" in answer
    etcdctl(gateway.address, "put", "--lease", lease, "leased", "x", flags=flags)
    etcdctl(gateway.address, "lease", "revoke", lease, flags=flags)
    assert etcdctl(gateway.address, "get", "leased", flags=flags) == ""


def test_http_gateway_by_curl(gateway, etcd):
    made = gateway("--endpoints", f"http://{etcd.client}/")
    answer = subprocess.run(
        ["curl", "-sS", "-d", '{"key":"Y3VybA==","value":"eA=="}', f"http://{made.address}/v3/kv/put"],
        capture_output=True, text=True, check=True, timeout=20)
    assert "revision" in json.loads(answer.stdout)["header"]


def test_ipv6_listener_and_endpoint(gateway, etcd, peers):
    made = gateway("--endpoints", etcd.client, "--listen-addr", "[::1]:0")
    assert made.address.startswith("[::1]:")
    assert etcdctl(made.address, "put", "six", "6") == "OK\n"
    six = peers.named("six", address="[::1]:0")
    assert gateway("--endpoints", six.address).ask() == "six"


def test_unix_listener(gateway, etcd, tmp_path):
    path = tmp_path / "gateway.sock"
    made = gateway("--endpoints", etcd.client, "--listen-addr", f"unix:{path}")
    answer = subprocess.run(
        ["curl", "-sS", "--unix-socket", str(path), "http://etcd/version"], capture_output=True, text=True,
        check=True, timeout=20)
    assert json.loads(answer.stdout)["etcdserver"].startswith("3.")
    assert etcdctl(f"unix://{path}", "put", "by-unix", "x") == "OK\n"
    assert made.end() == 0
    assert not path.exists()


def test_unix_endpoint(gateway, peers, tmp_path):
    server = peers.echo(address=f"unix:{tmp_path}/echo.sock")
    made = gateway("--endpoints", server.address)
    assert made.ask(b"through a socket file") == "through a socket file"


def test_several_listeners(gateway, peers, tmp_path):
    server = peers.named("behind")
    made = gateway(
        "--endpoints", server.address, "--listen-addr", f"127.0.0.1:0,[::1]:0,unix:{tmp_path}/a",
        "--listen-addr", "127.0.0.2:0")
    assert len(made.addresses) == 4
    for address in made.addresses:
        assert made.ask(address=address) == "behind", address


def test_empty_listen_host_is_every_address(gateway, peers):
    server = peers.named("behind")
    port = free_port()
    made = gateway("--endpoints", server.address, "--listen-addr", f":{port}")
    for host in ["127.0.0.1", "127.0.0.9", "[::1]"]:
        assert made.ask(address=f"{host}:{port}") == "behind", host


@pytest.mark.parametrize("spelling", ["{}", "http://{}", "https://{}", "http://{}/path?query"])
def test_spellings_of_an_endpoint(gateway, peers, spelling):
    server = peers.named("behind")
    made = gateway("--endpoints", spelling.format(server.address), "--health-check", "tcp")
    assert made.ask() == "behind"
