"""What is written to stderr."""

import datetime
import json
import re
import subprocess

from support.waiting import until


def test_ready_line_names_the_endpoints(gateway, peers):
    servers = [peers.echo(), peers.echo()]
    made = gateway("--endpoints", ",".join(server.address for server in servers))
    line = made.find("ready to proxy client requests")[0]
    assert line["level"] == "info"
    assert line["endpoints"] == [server.address for server in servers]


def test_key_order_and_forms(gateway, peers):
    made = gateway("--endpoints", peers.echo().address)
    assert made.raw
    for raw in made.raw:
        pairs = json.loads(raw, object_pairs_hook=list)
        assert [key for key, _ in pairs][:4] == ["level", "ts", "caller", "msg"]
        line = dict(pairs)
        assert line["level"] in ["debug", "info", "warn", "error"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d{4})", line["ts"])
        assert re.fullmatch(r"[\w.+-]+/[\w.+-]+:\d+", line["caller"])
    logged = datetime.datetime.fromisoformat(made.lines[0]["ts"].replace("Z", "+00:00"))
    assert abs((datetime.datetime.now(datetime.timezone.utc) - logged).total_seconds()) < 60


def test_first_line_has_the_arguments(gateway, peers):
    server = peers.echo()
    made = gateway("--endpoints", server.address)
    assert made.lines[0]["msg"] == "Running: "
    assert made.lines[0]["args"][1:3] == ["gateway", "start"]
    assert server.address in made.lines[0]["args"]


def test_console_format(gateway, peers):
    made = gateway("--endpoints", peers.echo().address, "--log-format", "console", ready=False)

    def ready_line():
        return next((raw for raw in made.raw if raw and "ready to proxy client requests" in raw), None)

    columns = until(ready_line).split("\t")
    assert columns[1] == "INFO"
    assert columns[3] == "ready to proxy client requests"
    assert json.loads(columns[4])["endpoints"]


def test_level(gateway, peers):
    made = gateway("--endpoints", peers.named("behind").address, "--log-level", "error", ready=False)
    # Nothing to wait for in a quiet log: the process answers once it listens, so find its port by the kernel.

    def port():
        listing = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True).stdout
        match = re.search(rf"127\.0\.0\.1:(\d+) .*pid={made.pid},", listing)
        return match and match[1]

    assert made.ask(address=f"127.0.0.1:{until(port)}") == "behind"
    assert made.end() == 0
    assert made.log == ""


def test_access_log(gateway, peers):
    server = peers.echo()
    made = gateway("--endpoints", server.address, "--access-log")
    with made.connect() as client:
        client.sendall(b"x" * 1000)
        got = b""
        while len(got) < 1000:
            got += client.recv(1000)
        source = "%s:%d" % client.getsockname()
    line = made.wait_for("connection")
    assert line["client"] == source
    assert line["endpoint"] == server.address
    assert line["bytes-up"] == line["bytes-down"] == 1000
    assert line["end"] == "both sides ended"
