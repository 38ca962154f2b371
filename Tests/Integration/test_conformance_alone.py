"""Conformance that needs an etcd or a proxy of its own."""

import subprocess

import pytest

from conformance.case import first_difference
from conformance.places import RELEASES, Place, Places, Way
from conformance.run import Run
from support.grpc_proxy import PROGRAM, GrpcProxy
from support.waiting import until


@pytest.fixture
def places(authority):
    made = Places(authority)
    yield made
    made.close()


@pytest.mark.parametrize("release", RELEASES)
def test_token_that_ran_out(release, places, authority, tmp_path):
    """Tokens of one second: when etcd no longer takes one, the proxy says what etcd says."""
    private, public = tmp_path / "private", tmp_path / "public"
    subprocess.run(["openssl", "genrsa", "-out", private, "2048"], check=True, capture_output=True)
    subprocess.run(
        ["openssl", "rsa", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    place = Place(release, False, True, authority, tmp_path, extra=[
        "--auth-token", f"jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl=1s"])
    way = Way(place, None)
    try:
        until(lambda: Run(way.direct, place.tokens).call("KV/Range", key=b"a/k", by="alice") is None)
        records = []
        for client in [way.direct, way.through]:
            run = Run(client, dict(place.tokens))
            run.call("KV/Range", key=b"a/k", by="alice")
            run.call("KV/Put", key=b"a/k", by="alice")
            run.call("Cluster/MemberList", by="alice")
            for name, request in [("Watch/Watch", {"create_request": {"key": b"a/k"}}),
                                  ("Lease/LeaseKeepAlive", {"ID": 4711})]:
                stream = run.stream(name, request, by="alice")
                run.take(stream)
            run.end()
            records.append(run.record)
        assert first_difference(*records) is None, first_difference(*records)
        # A new token is as good as ever.
        place.login()
        run = Run(way.through, place.tokens)
        assert run.call("KV/Put", key=b"a/k", by="alice"), run.record
    finally:
        way.close()
        place.close()


@pytest.mark.skipif(PROGRAM == "none", reason="there is no proxy")
def test_members_are_the_proxies_where_a_proxy_is_advertised(places):
    """Intended, and as etcd's own: clients that ask for members shall come to the proxy, not around it."""
    place = places.place("3.5")
    proxy = GrpcProxy("--endpoints", place.etcd.client, own_advertised=True)
    client = place.connect(proxy.address)
    try:
        run = Run(client, {})
        members = run.call("Cluster/MemberList").members
        assert [list(member.clientURLs) for member in members] == [[proxy.address]], run.record
    finally:
        client.close()
        assert proxy.end() is not None
