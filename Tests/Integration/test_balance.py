"""Which endpoint a new connection goes to."""

import collections

import pytest

from support.waiting import until


def names(made, count):
    return [made.ask() for _ in range(count)]


def servers_of(peers, letters):
    servers = [peers.named(letter) for letter in letters]
    return servers, ",".join(server.address for server in servers)


def test_round_robin_is_exact(gateway, peers):
    _, endpoints = servers_of(peers, "abc")
    got = names(gateway("--endpoints", endpoints), 99)
    assert collections.Counter(got) == {"a": 33, "b": 33, "c": 33}
    for start in range(0, 99, 3):
        assert sorted(got[start:start + 3]) == ["a", "b", "c"]


def test_round_robin_holds_over_all_threads(gateway, peers):
    _, endpoints = servers_of(peers, "abc")
    made = gateway("--endpoints", endpoints, "--threads", "4")
    assert collections.Counter(names(made, 300)) == {"a": 100, "b": 100, "c": 100}


@pytest.mark.parametrize("weights", ["1,1,1", "5,1,1", "3,2,1", "1,10,100"])
def test_weights_are_exact(gateway, peers, weights):
    _, endpoints = servers_of(peers, "abc")
    made = gateway("--endpoints", endpoints, "--endpoint-weights", weights)
    shares = [int(weight) for weight in weights.split(",")]
    got = collections.Counter(names(made, 2 * sum(shares)))
    assert [got[letter] for letter in "abc"] == [2 * share for share in shares]


def test_least_connections(gateway, peers):
    servers, endpoints = servers_of(peers, "abc")
    made = gateway(
        "--endpoints", endpoints, "--balance", "least-connections", "--metrics-addr", "127.0.0.1:0")
    held = collections.defaultdict(list)
    for _ in range(9):
        client = peers.keep(made.connect())
        client.sendall(b"?")
        held[client.recv(1)].append(client)
    assert {name: len(clients) for name, clients in held.items()} == {b"a": 3, b"b": 3, b"c": 3}
    for client in held[b"b"]:
        client.close()
    address = servers[1].address
    until(lambda: made.metric("ringway_gateway_endpoint_connections_active", endpoint=address) == 0)
    again = []
    for _ in range(3):
        client = peers.keep(made.connect())
        client.sendall(b"?")
        again.append(client.recv(1))
    assert again == [b"b"] * 3


def test_an_endpoint_that_refuses_costs_no_client_anything(gateway, peers):
    servers, endpoints = servers_of(peers, "abc")
    made = gateway("--endpoints", endpoints)
    assert set(names(made, 3)) == {"a", "b", "c"}
    servers[1].close()
    assert collections.Counter(names(made, 40)).keys() == {"a", "c"}
    assert made.find("deactivated endpoint", address=servers[1].address)
    back = peers.named("b", address=servers[1].address)
    made.wait_for("activated", address=back.address)
    assert collections.Counter(names(made, 30)) == {"a": 10, "b": 10, "c": 10}


def test_no_endpoint_at_all(gateway, peers):
    server = peers.named("a")
    made = gateway("--endpoints", server.address)
    server.close()
    assert made.ask() == ""
    assert made.ask() == ""
    peers.named("a", address=server.address)
    made.wait_for("activated")
    assert made.ask() == "a"
