"""The pages of the gRPC proxy, on the port of the calls and on --metrics-addr, over HTTP/1.0, 1.1 and 2."""

import json
import re
import subprocess

import pytest

from conformance.places import Place
from support import net, prometheus
from support.etcds import Etcd
from support.frames import DATA, END_HEADERS, END_STREAM, HEADERS, WINDOW_UPDATE, RawClient, field, frame
from support.grpc_calls import Caller, credentials
from support.waiting import Stopwatch, until

HEALTHY = '{"health":"true","reason":""}'


def fetch(proxy, path, *flags, address=None):
    """Status, content type, body and version of a page."""
    mark = "\n%{http_code}|%{content_type}|%{http_version}"
    result = subprocess.run(
        ["curl", "-sS", "--max-time", "15", "-w", mark, *flags, f"http://{address or proxy.address}{path}"],
        capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    body, _, facts = result.stdout.rpartition("\n")
    status, kind, version = facts.split("|")
    return int(status), kind, body, version


def talk(address, data, *, half_close=False):
    """Everything that comes back on a connection until it is closed."""
    with net.connect(address) as client:
        client.sendall(data)
        if half_close:
            client.shutdown(1)
        return net.read_to_end(client)


@pytest.fixture
def lonely_etcd(tmp_path):
    member = Etcd("lonely", tmp_path)
    member.start()
    until(member.is_healthy, 40, "etcd", pause=0.05)
    yield member
    member.end()


VERSIONS = pytest.mark.parametrize("flag, version", [
    ("--http1.0", "1.1"), ("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")])


@VERSIONS
def test_pages(proxy, flag, version):
    started = proxy()
    assert fetch(started, "/health", flag) == (200, "text/plain; charset=utf-8", HEALTHY, version)
    assert fetch(started, "/health?exclude=NOSPACE&serializable=true", flag)[2] == HEALTHY
    assert fetch(started, "/proxy/health", flag) == (200, "text/plain; charset=utf-8", HEALTHY, version)
    assert fetch(started, "/nothing", flag) == (404, "text/plain; charset=utf-8", "404 page not found\n", version)
    assert fetch(started, "/debug/pprof/", flag)[0] == 404
    status, kind, body, _ = fetch(started, "/metrics", flag)
    assert (status, kind) == (200, "text/plain; version=0.0.4")
    assert "etcd_server_has_leader 1" in body.splitlines()
    status, kind, body, _ = fetch(started, "/proxy/metrics", flag)
    assert status == 200 and kind.startswith("text/plain; version=0.0.4")
    assert "# TYPE etcd_grpc_proxy_watchers_coalescing_total gauge" in body


@VERSIONS
def test_head(proxy, flag, version):
    started = proxy()
    status, _, text, found = fetch(started, "/proxy/metrics", flag, "--head")
    assert (status, found) == (200, version)
    assert "# TYPE" not in text and re.search("^content-type: text/plain", text, re.I | re.M)
    status, _, text, _ = fetch(started, "/health", flag, "--head")
    assert status == 405 and re.search("^allow: GET", text, re.I | re.M)


def test_methods(proxy):
    started = proxy()
    assert fetch(started, "/health", "-X", "POST", "--http1.1")[:3] == (
        405, "text/plain; charset=utf-8", "Method Not Allowed\n")
    assert fetch(started, "/metrics", "-X", "DELETE", "--http1.1")[0] == 200
    # What a gRPC server says to a POST that is no call.
    assert fetch(started, "/health", "-X", "POST", "--http2-prior-knowledge")[0] == 415




def test_the_metrics_text_is_well_formed(proxy):
    started = proxy("--advertise-client-url", "")
    with Caller(started.address) as caller:
        caller.put(b"pages", b"1")
        caller.code("Auth/UserGet", name="nobody")
    text = fetch(started, "/proxy/metrics")[2]
    assert text.endswith("\n")
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    seen = set()
    for line in text[:-1].split("\n"):
        if not line.startswith("#"):
            match = prometheus.SAMPLE.fullmatch(line)
            assert match, line
            key = match[1], match[2]
            assert key not in seen, line
            seen.add(key)
            family = re.sub("_(bucket|sum|count)$", "", match[1])
            assert match[1] in kinds or kinds.get(family) == "histogram", line
    for name, labels, count in re.findall(r"^(\S+)_count\{(.*)\} (\d+)$", text, re.M):
        found = re.findall(rf'^{name}_bucket\{{{re.escape(labels)},le="(\S+)"\}} (\d+)$', text, re.M)
        assert [int(value) for _, value in found] == sorted(int(value) for _, value in found)
        assert found[-1] == ("+Inf", count)
    started_calls = 'grpc_server_started_total{grpc_type="unary",grpc_service="etcdserverpb.KV",grpc_method="Put"} 1'
    assert started_calls in text.splitlines()
    assert re.search(r'grpc_server_handled_total\{[^}]*"UserGet"[^}]*grpc_code="(Unknown|FailedPrecondition)"\} 1', text)


def test_metrics_fail_over(proxy, lonely_etcd):
    dead = f"127.0.0.1:{net.free_port()}"
    started = proxy("--endpoints", f"{dead},{lonely_etcd.client}")
    for _ in range(5):
        assert fetch(started, "/metrics")[0] == 200
    lonely_etcd.kill()
    assert fetch(started, "/metrics") == (500, "text/plain; charset=utf-8", "Internal server error\n", "1.1")


def test_metrics_of_a_name_with_two_addresses(proxy, dns, lonely_etcd):
    port = lonely_etcd.client.rpartition(":")[2]
    dns.set("twice.example", "A", ["127.0.0.1", "127.0.0.2"])
    dns.set("twice.example", "AAAA", ["::1"])
    started = proxy("--endpoints", f"twice.example:{port}", "--dns-servers", dns.address)
    assert fetch(started, "/metrics")[0] == 200


def test_health_without_etcd(proxy, lonely_etcd):
    started = proxy("--endpoints", lonely_etcd.client)
    assert fetch(started, "/health")[0] == 200
    lonely_etcd.kill()
    status, kind, body, _ = fetch(started, "/health")
    assert (status, kind) == (503, "text/plain; charset=utf-8")
    answer = json.loads(body)
    assert answer["health"] == "false" and answer["reason"].startswith("GET ERROR:")
    until(lambda: fetch(started, "/proxy/health")[0] == 503, 15, "unhealthy")
    lonely_etcd.start()
    until(lambda: fetch(started, "/proxy/health")[0] == 200, 15, "healthy")
    until(lambda: fetch(started, "/health")[0] == 200, 15, "healthy")


def test_health_with_authentication_on(proxy, authority, tmp_path):
    place = Place("3.4", False, True, authority, tmp_path)
    try:
        started = proxy("--endpoints", place.etcd.client)
        assert fetch(started, "/health")[:3] == (200, "text/plain; charset=utf-8", HEALTHY)
        assert fetch(started, "/proxy/health")[0] == 200
        assert fetch(started, "/metrics")[0] == 200
    finally:
        place.close()


# HTTP/1.

REQUEST = b"GET /proxy/health HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /proxy/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_kept_connections(proxy):
    started = proxy()
    with started.connect() as client:
        for _ in range(3):
            client.sendall(REQUEST)
            answer = b""
            while not answer.endswith(HEALTHY.encode()):
                answer += client.recv(4096)
            assert b"Connection: close" not in answer
        client.sendall(LAST)
        assert b"Connection: close" in net.read_to_end(client)


@pytest.mark.parametrize("half_close", [False, True])
def test_requests_in_a_row(proxy, half_close):
    started = proxy()
    data = REQUEST * 9 + (REQUEST if half_close else LAST)
    watch = Stopwatch()
    assert talk(started.address, data, half_close=half_close).count(HEALTHY.encode()) == 10
    assert watch.seconds < 5


def test_http_1_0_ends_its_connection(proxy):
    started = proxy()
    assert talk(started.address, b"GET /proxy/health HTTP/1.0\r\n\r\n").endswith(HEALTHY.encode())
    assert talk(started.address, b"GET /proxy/health HTTP/1.0\r\n\r\n", half_close=True).endswith(HEALTHY.encode())


@pytest.mark.parametrize("data, status", [
    (b"nonsense\r\n\r\n", b"400"), (b"GET / HTTP/1.1\r\n\r\n", b"400"), (b"GET / HTTP/3.0\r\n\r\n", b"505"),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 70000 + b"\r\n\r\n", b"431"), (b"\x16\x03\x01\x00\x05hello", b"400"),
])
def test_bad_requests(proxy, data, status):
    started = proxy()
    answer = talk(started.address, data)
    assert not answer or answer.split(b" ")[1] == status, answer
    assert fetch(started, "/proxy/health")[0] == 200


def test_unread_pages_are_not_made(proxy):
    """Thousands of requests whose pages nobody reads: one page at a time, whatever it costs the visitor."""
    started = proxy("--threads", "1")
    before = started.private_bytes
    with started.connect() as client:
        client.setblocking(False)
        request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
        sent = 0
        try:
            while sent < 1500:
                client.sendall(request)
                sent += 1
        except BlockingIOError:
            pass
        for _ in range(20):
            assert fetch(started, "/metrics")[0] == 200
        assert started.private_bytes - before < 24 << 20


# HTTP/2.


def test_a_page_longer_than_the_window(proxy):
    started = proxy()
    with RawClient(started.address, settings=[(4, 1000)]) as client:
        fields = [(":method", "GET"), (":scheme", "http"), (":path", "/metrics"), (":authority", "x")]
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, b"".join(field(*pair) for pair in fields)))
        body = b""
        while True:
            kind, flags, stream, payload = client.read()
            if kind == DATA:
                body += payload
                if flags & END_STREAM:
                    break
                credit = (1000).to_bytes(4, "big")
                client.send(frame(WINDOW_UPDATE, 0, 1, credit) + frame(WINDOW_UPDATE, 0, 0, credit))
        assert b"etcd_server_has_leader 1\n" in body


def test_more_pages_at_once_than_a_core_has_room_for(proxy):
    started = proxy("--threads", "1")
    with RawClient(started.address) as client:
        fields = [(":method", "GET"), (":scheme", "http"), (":path", "/proxy/health"), (":authority", "x")]
        head = b"".join(field(*pair) for pair in fields)
        streams = set(range(1, 2000, 2))
        client.send(b"".join(frame(HEADERS, END_HEADERS | END_STREAM, stream, head) for stream in sorted(streams)))
        while streams:
            kind, flags, stream, _ = client.read()
            if kind == DATA and flags & END_STREAM:
                streams.remove(stream)


# --metrics-addr.


def visitors(proxy):
    return proxy.find("listening for metrics")[0]["address"]


def is_full(proxy):
    try:
        return net.is_reset(proxy.connect())
    except ConnectionResetError:
        return True


def admitted(proxy):
    """A connection that the proxy has taken and answered, or None: it refuses while an earlier one is not gone."""
    client = proxy.connect()
    try:
        client.sendall(REQUEST)
        if client.recv(12) == b"HTTP/1.1 200":
            return client
    except OSError:
        pass
    client.close()
    return None


def test_the_metrics_listener_has_pages_and_no_calls(proxy):
    started = proxy("--metrics-addr", f"http://127.0.0.1:{net.free_port()}", "--max-connections", "1")
    with until(lambda: admitted(started), 10, "the one client"):
        assert is_full(started)
        for path in ["/metrics", "/health", "/proxy/health", "/proxy/metrics"]:
            assert fetch(started, path, address=visitors(started))[0] == 200
        assert fetch(started, "/other", address=visitors(started))[0] == 404
        with Caller(visitors(started)) as caller:
            assert caller.code("KV/Range", key=b"a") in ("UNIMPLEMENTED", "UNKNOWN")


def test_the_metrics_listener_in_plain_text_beside_tls(proxy, authority):
    files = ["--cert-file", authority.certificate("member"), "--key-file", authority.key("member"),
             "--trusted-ca-file", authority.certificate()]
    plain = proxy(*files, "--metrics-addr", f"http://127.0.0.1:{net.free_port()}")
    assert fetch(plain, "/proxy/health", address=visitors(plain))[0] == 200
    with Caller(visitors(plain)) as caller:
        assert caller.code("KV/Range", key=b"a") in ("UNIMPLEMENTED", "UNKNOWN")
    secure = proxy(*files, "--metrics-addr", f"https://127.0.0.1:{net.free_port()}")
    own = ["--cacert", authority.certificate(), "--cert", authority.certificate("client"),
           "--key", authority.key("client")]
    url = f"https://{visitors(secure)}/proxy/health"
    assert subprocess.run(["curl", "-sS", *own, url], capture_output=True, text=True).stdout == HEALTHY
    assert subprocess.run(["curl", "-sS", *own[:2], url], capture_output=True).returncode != 0
    assert subprocess.run(["curl", "-sS", url.replace("https", "http")], capture_output=True).returncode != 0
    with Caller(secure.address, credentials(authority, "client")) as caller:
        caller.put(b"beside", b"1")


def test_the_metrics_listener_on_a_unix_socket(proxy, tmp_path):
    path = tmp_path / "metrics"
    started = proxy("--metrics-addr", f"unix://{path}")
    answer = subprocess.run(
        ["curl", "-sS", "--unix-socket", path, "http://x/proxy/health"], capture_output=True, text=True)
    assert answer.stdout == HEALTHY
    assert started.end() == 0
    assert not path.exists()


def test_draining_ends_visitors(proxy):
    started = proxy("--metrics-addr", f"http://127.0.0.1:{net.free_port()}")
    with net.connect(visitors(started)) as client:
        client.sendall(REQUEST)
        assert client.recv(12) == b"HTTP/1.1 200"
        started.signal(15)
        assert started.wait() == 0
