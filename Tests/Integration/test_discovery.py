"""SRV discovery, with a DNS server of the test's own."""

import collections
import ssl

import pytest

from support import gateway as program
from support.certificates import Authority
from support.waiting import PATIENCE, Stopwatch, until

HTTP, HTTPS = "_etcd-client._tcp.cluster.test", "_etcd-client-ssl._tcp.cluster.test"


def list_servers(dns, name, servers, ttl=60, priorities=None, weights=None):
    """Publishes servers on 127.0.0.1 as `<letter>.cluster.test`."""
    records = []
    for index, server in enumerate(servers):
        target = f"m{server.port}.cluster.test"
        dns.set(target, "A", ["127.0.0.1"], ttl=3600)
        priority = priorities[index] if priorities else 0
        weight = weights[index] if weights else 0
        records.append((priority, weight, server.port, target + "."))
    dns.set(name, "SRV", records, ttl=ttl)


def discovering(gateway, dns, *arguments, **options):
    return gateway("--discovery-srv", "cluster.test", "--dns-servers", dns.address, *arguments, **options)


def shares(made, count):
    return collections.Counter(made.ask() for _ in range(count))


@pytest.fixture
def abc(peers):
    return [peers.named(letter) for letter in "abc"]


def test_insecure_discovery_takes_all(gateway, dns, abc):
    list_servers(dns, HTTP, abc)
    made = discovering(gateway, dns, "--insecure-discovery")
    assert shares(made, 30) == {"a": 10, "b": 10, "c": 10}
    line = made.find("discovered cluster from SRV")[0]
    assert line["srv-server"] == "cluster.test"
    logged = [endpoint.replace("test.:", "test:") for endpoint in line["endpoints"]]
    assert sorted(logged) == sorted(f"http://m{server.port}.cluster.test:{server.port}" for server in abc)


def test_weights_are_kept(gateway, dns, abc):
    """Two records of weight 1 share evenly; etcd's gateway never takes the second."""
    list_servers(dns, HTTP, abc[:2], weights=[1, 1])
    assert shares(discovering(gateway, dns, "--insecure-discovery"), 20) == {"a": 10, "b": 10}
    list_servers(dns, HTTP, abc, weights=[6, 3, 1])
    assert shares(discovering(gateway, dns, "--insecure-discovery"), 30) == {"a": 18, "b": 9, "c": 3}


def test_priorities_are_kept_with_weight_0(gateway, dns, abc):
    """etcd's gateway takes all of them in turn."""
    list_servers(dns, HTTP, abc, priorities=[1, 2, 3])
    made = discovering(gateway, dns, "--insecure-discovery")
    assert shares(made, 20) == {"a": 20}
    abc[0].close()
    assert shares(made, 20) == {"b": 20}


def test_https_and_http_records_together(gateway, dns, abc):
    list_servers(dns, HTTPS, abc[:1])
    list_servers(dns, HTTP, abc[1:])
    assert shares(discovering(gateway, dns, "--insecure-discovery"), 30) == {"a": 10, "b": 10, "c": 10}


def test_service_name(gateway, dns, abc):
    list_servers(dns, "_etcd-client-blue._tcp.cluster.test", abc[:1])
    list_servers(dns, HTTP, abc[1:])
    made = discovering(gateway, dns, "--insecure-discovery", "--discovery-srv-name", "blue")
    assert shares(made, 6) == {"a": 6}


def test_records_are_looked_up_again(gateway, dns, abc, peers):
    """A member is added and another removed while the gateway runs."""
    list_servers(dns, HTTP, abc[:2], ttl=1)
    made = discovering(gateway, dns, "--insecure-discovery")
    assert shares(made, 20) == {"a": 10, "b": 10}
    stays = peers.keep(made.connect())
    list_servers(dns, HTTP, abc[1:], ttl=1)
    watch = Stopwatch()
    until(lambda: shares(made, 4) == {"b": 2, "c": 2})
    assert watch.seconds < 6
    assert made.find("endpoints changed")
    stays.sendall(b"?")
    assert stays.recv(10) in (b"a", b"b"), "a connection to a removed member was cut"


def test_dns_outage_changes_nothing(gateway, dns, abc):
    list_servers(dns, HTTP, abc[:2], ttl=1)
    made = discovering(gateway, dns, "--insecure-discovery")
    dns.mode = "fail"
    made.wait_for("discovery failed; endpoints stay as they are")
    assert shares(made, 20) == {"a": 10, "b": 10}
    dns.mode = "answer"
    list_servers(dns, HTTP, abc, ttl=1)
    until(lambda: shares(made, 3) == {"a": 1, "b": 1, "c": 1}, PATIENCE)


def test_both_lookups_failed(dns):
    result = program.run(
        "gateway", "start", "--discovery-srv", "cluster.test", "--dns-servers", dns.address, "--listen-addr",
        "127.0.0.1:0")
    assert result.returncode == 1
    assert f"dns lookup errors: lookup {HTTPS}" in result.stderr
    assert f" and lookup {HTTP}" in result.stderr
    assert result.stdout == ""


def test_what_is_not_found_does_not_become_this_machine(dns, peers):
    """etcd's gateway falls back to 127.0.0.1:2379 without a word when no discovered endpoint is valid."""
    server = peers.named("plain")
    list_servers(dns, HTTP, [server])
    result = program.run(
        "gateway", "start", "--discovery-srv", "cluster.test", "--dns-servers", dns.address, "--listen-addr",
        "127.0.0.1:0", seconds=20)
    assert result.returncode == 1
    assert "failed to validate discovered endpoints" in result.stderr
    assert "is insecure" in result.stderr
    assert result.stderr.strip().splitlines()[-1] == "no endpoints found"
    assert "2379" not in result.stderr


def test_explicit_endpoints_stand_in_for_nothing_found(gateway, dns, peers):
    static, listed = peers.named("static"), peers.named("listed")
    list_servers(dns, HTTP, [listed])
    made = discovering(gateway, dns, "--endpoints", static.address)
    assert made.find("discovery found no endpoint; using --endpoints")
    assert made.ask() == "static"


def test_addresses_are_resolved_again(gateway, dns, peers):
    """A member moves to another address under its name."""
    first = peers.named("first", address="127.0.0.2:0")
    peers.named("second", address=f"127.0.0.3:{first.port}")
    dns.set("member.test", "A", ["127.0.0.2"], ttl=1)
    made = gateway("--endpoints", f"member.test:{first.port}", "--dns-servers", dns.address)
    assert made.ask() == "first"
    dns.set("member.test", "A", ["127.0.0.3"], ttl=1)
    watch = Stopwatch()
    until(lambda: made.ask() == "second")
    assert watch.seconds < 6


def test_a_name_that_resolves_later(gateway, dns, peers):
    """It does not at the start: the gateway serves the others, and this one as soon as it can."""
    early, late = peers.named("early"), peers.named("late")
    made = gateway(
        "--endpoints", f"{early.address},late.test:{late.port}", "--dns-servers", dns.address)
    assert shares(made, 4) == {"early": 4}
    dns.set("late.test", "A", ["127.0.0.1"], ttl=60)
    until(lambda: shares(made, 2) == {"early": 1, "late": 1})


def test_all_addresses_of_a_name_are_tried(gateway, dns, peers):
    server = peers.named("second", address="127.0.0.3:0")
    dns.set("both.test", "A", ["127.0.0.2", "127.0.0.3"], ttl=60)
    made = gateway("--endpoints", f"both.test:{server.port}", "--dns-servers", dns.address)
    assert [made.ask() for _ in range(4)] == ["second"] * 4


def test_names_of_ipv6_addresses(gateway, dns, peers):
    server = peers.named("six", address="[::1]:0")
    dns.set("six.test", "AAAA", ["::1"], ttl=60)
    assert gateway("--endpoints", f"six.test:{server.port}", "--dns-servers", dns.address).ask() == "six"


# The check of secure endpoints

@pytest.fixture
def secure(peers, authority):
    """A TLS server whose certificate, for *.cluster.test, the authority signed."""
    certificate, key = authority.issue("cluster", names="DNS:*.cluster.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve(connection):
        with context.wrap_socket(connection, server_side=True) as stream:
            stream.sendall(stream.recv(100))

    return peers.server(serve)


def ask_securely(made, authority):
    context = ssl.create_default_context(cafile=authority.certificate())
    with context.wrap_socket(made.connect(), server_hostname="m.cluster.test") as stream:
        stream.sendall(b"secret")
        return stream.recv(100)


def test_certificates_of_the_authority_are_accepted(gateway, dns, secure, authority):
    list_servers(dns, HTTPS, [secure])
    made = discovering(gateway, dns, "--trusted-ca-file", authority.certificate())
    assert made.find("using validated discovered SRV endpoints")
    assert ask_securely(made, authority) == b"secret"


@pytest.mark.parametrize("ca", ["other", "missing", "garbage"])
def test_other_certificates_are_refused(dns, secure, tmp_path, ca):
    list_servers(dns, HTTPS, [secure])
    file = str(tmp_path / "garbage.crt")
    if ca == "other":
        file = Authority(tmp_path, "other").certificate()
    elif ca == "garbage":
        with open(file, "w", encoding="ascii") as garbage:
            garbage.write("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    result = program.run(
        "gateway", "start", "--discovery-srv", "cluster.test", "--dns-servers", dns.address, "--listen-addr",
        "127.0.0.1:0", "--trusted-ca-file", file, seconds=20)
    assert result.returncode == 1
    assert "failed to validate discovered endpoints" in result.stderr


def test_a_certificate_for_another_name_is_refused(dns, secure, authority):
    dns.set("elsewhere.test", "A", ["127.0.0.1"])
    dns.set(HTTPS, "SRV", [(0, 0, secure.port, "elsewhere.test.")])
    result = program.run(
        "gateway", "start", "--discovery-srv", "cluster.test", "--dns-servers", dns.address, "--listen-addr",
        "127.0.0.1:0", "--trusted-ca-file", authority.certificate(), seconds=20)
    assert result.returncode == 1


def test_one_bad_endpoint_beside_a_good_one(gateway, dns, secure, peers, authority):
    """What is only a TCP listener passes etcd's check; here it is left out."""
    plain = peers.named("plain")
    list_servers(dns, HTTPS, [secure, plain])
    made = discovering(gateway, dns, "--trusted-ca-file", authority.certificate())
    line = made.find("failed to validate discovered endpoints")[0]
    assert str(plain.port) in line["error"] and str(secure.port) not in line["error"]
    for _ in range(4):
        assert ask_securely(made, authority) == b"secret"


def test_a_plain_listener_is_no_secure_endpoint(dns, peers):
    server = peers.named("plain")
    list_servers(dns, HTTPS, [server])
    result = program.run(
        "gateway", "start", "--discovery-srv", "cluster.test", "--dns-servers", dns.address, "--listen-addr",
        "127.0.0.1:0", seconds=20)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1] == "no endpoints found"
