"""The range cache of the gRPC proxy against real etcds: what it may answer, and what it must not.

Where nothing else is said a read is serializable, the only kind that the cache answers by default."""

import threading
import urllib.request

import pytest

from conformance.places import PASSWORDS, Place
from support import grpc_proxy
from support.etcds import Etcd
from support.grpc_calls import Caller, request
from support.proxy_state import page, sample
from support.waiting import until

pytestmark = pytest.mark.skipif(not grpc_proxy.IS_OURS, reason="etcd's proxy keeps none of this")

EVERYTHING = {"key": b"\0", "range_end": b"\0"}


@pytest.fixture(scope="module", params=["3.4", "3.5"])
def store(request, tmp_path_factory, authority):
    made = Place(request.param, False, False, authority, tmp_path_factory.mktemp("store"))
    yield made
    made.close()


@pytest.fixture
def direct(store):
    with Caller(store.etcd.client) as caller:
        caller.ok("KV/DeleteRange", **EVERYTHING)
        caller.address = store.etcd.client
        yield caller


@pytest.fixture
def start(proxy, store):
    def make(*arguments, **options):
        return proxy(*store.proxy_flags(), *arguments, **options)
    return make


class Reader(Caller):
    """A client of a proxy that reads what the cache may answer."""

    def read(self, key, **fields):
        return self.ok("KV/Range", key=key, serializable=True, **fields)

    def value(self, key):
        found = self.read(key).kvs
        return found[0].value if found else None


def metric(proxy, name):
    return sample(page(proxy, "/proxy/metrics"), name)


def hits(proxy):
    return metric(proxy, "ringway_cache_hits_total")


def warm(proxy, client, key, **fields):
    """Reads until the cache answers by itself, kept right by a watch."""
    def answered():
        before = hits(proxy)
        client.read(key, **fields)
        return hits(proxy) > before and metric(proxy, "ringway_cache_keepers") > 0
    until(answered, what="an answer from the cache")


def test_answers_come_from_memory(start, direct):
    started = start()
    with Reader(started.address) as client:
        direct.put(b"hot", b"1")
        warm(started, client, b"hot")
        asked = etcd_ranges(direct)
        before = hits(started)
        for _ in range(100):
            answer = client.read(b"hot")
            assert answer.kvs[0].value == b"1" and answer.count == 1
            assert answer.header.cluster_id and answer.header.member_id and answer.header.raft_term
        assert hits(started) - before >= 90
        # Beside ours only health checks have asked.
        assert etcd_ranges(direct) - asked < 20
        assert metric(started, "etcd_grpc_proxy_cache_keys_total") == 1
        assert metric(started, "etcd_grpc_proxy_cache_hits_total") >= 100


def etcd_ranges(direct):
    with urllib.request.urlopen(f"http://{direct.address}/metrics", timeout=5) as answer:
        return sample(answer.read().decode(), "etcd_debugging_mvcc_range_total")


@pytest.mark.parametrize("shape", [
    {"key": b"k/1"}, {"key": b"k/", "range_end": b"k0"}, {"key": b"k/", "range_end": b"\0"}, EVERYTHING,
    {"key": b"k/", "range_end": b"k0", "limit": 1}, {"key": b"k/", "range_end": b"k0", "count_only": True},
    {"key": b"k/", "range_end": b"k0", "keys_only": True, "sort_order": 2, "sort_target": 3}],
    ids=lambda shape: "-".join(str(value) for value in shape.values()))
def test_writes_elsewhere_show(start, direct, shape):
    started = start()
    with Reader(started.address) as client:
        direct.put(b"k/1", b"old")
        warm(started, client, **shape)
        for step in [lambda: direct.put(b"k/1", b"new"), lambda: direct.ok("KV/DeleteRange", key=b"k/1"),
                     lambda: direct.put(b"k/1", b"again"),
                     lambda: direct.ok("KV/Txn", success=[{"request_put": {"key": b"k/1", "value": b"txn"}}])]:
            step()

            def shows():
                expected = direct.ok("KV/Range", **shape)
                found = client.read(**shape)
                return (found.kvs, found.count, found.more) == (expected.kvs, expected.count, expected.more)
            until(shows, what="the write")


def test_writes_through_another_proxy_show(start, direct):
    one, other = start(), start()
    with Reader(one.address) as reader, Reader(other.address) as writer:
        writer.put(b"shared", b"0")
        warm(one, reader, b"shared")
        warm(other, writer, b"shared")
        for number in range(1, 20):
            value = str(number).encode()
            writer.put(b"shared", value)
            assert writer.value(b"shared") == value
            until(lambda: reader.value(b"shared") == value, what="the write through the other proxy")


def test_leases_that_end_take_their_keys_along(start, direct):
    started = start()
    with Reader(started.address) as client:
        for ID, end in [(71, lambda: direct.ok("Lease/LeaseRevoke", ID=71)),
                        (72, lambda: client.ok("Lease/LeaseRevoke", ID=72)), (73, lambda: None)]:
            direct.ok("Lease/LeaseGrant", ID=ID, TTL=600 if ID < 73 else 2)
            direct.ok("KV/Put", key=b"leased", value=b"1", lease=ID)
            warm(started, client, b"leased")
            end()
            if ID == 72:
                assert client.value(b"leased") is None
            until(lambda: client.value(b"leased") is None, what="the end of the key")


def test_own_writes_are_read(start, direct):
    """Every kind of write, right after warm reads, on its connection."""
    started = start()
    nested = {"request_txn": {"success": [{"request_txn": {"success": [
        {"request_put": {"key": b"own", "value": b"nested"}}]}}]}}
    false = [{"key": b"own", "target": 0, "result": 0, "version": 99}]
    with Reader(started.address) as client:
        client.put(b"own", b"0")
        steps = [("KV/Put", {"key": b"own", "value": b"put"}, b"put"),
                 ("KV/Txn", {"success": [nested]}, b"nested"),
                 ("KV/Txn", {"compare": false, "failure": [{"request_put": {"key": b"own", "value": b"else"}}]}, b"else"),
                 ("KV/DeleteRange", {"key": b"o", "range_end": b"\0"}, None),
                 ("KV/Put", {"key": b"own", "value": b"1"}, b"1"),
                 ("KV/Txn", {"success": [{"request_delete_range": {"key": b"own"}}]}, None)]
        for _ in range(5):
            for name, fields, expected in steps:
                client.value(b"own")
                client.read(b"o", range_end=b"p")
                client.ok(name, **fields)
                assert client.value(b"own") == expected, name
                found = client.read(b"o", range_end=b"p").kvs
                assert [entry.value for entry in found] == ([] if expected is None else [expected]), name


@pytest.mark.parametrize("flags", [["--threads", "1"], ["--threads", "3"], ["--cache-max-staleness", "0"],
                                   ["--cache", "etcd"], ["--consistent-cache"]], ids=" ".join)
def test_nobody_reads_backwards_nor_misses_an_own_write(start, direct, flags):
    started = start(*flags)
    keys = [b"m/%d" % number for number in range(3)]
    for key in keys:
        direct.put(key, b"0")
    failures, stop = [], threading.Event()

    def work(number):
        with Reader(started.address) as client:
            newest, own = 0, {}
            for step in range(400):
                key = keys[(number + step) % 3]
                kind = (number * 7 + step * 5) % 11
                if kind == 0:
                    value = b"%d-%d" % (number, step)
                    answer = client.put(key, value)
                    own[key] = answer.header.revision
                elif kind == 1:
                    answer = client.ok("KV/Range", key=key)
                elif kind == 2:
                    answer = client.read(b"m/", range_end=b"m0")
                else:
                    answer = client.read(key)
                if answer.header.revision < newest:
                    failures.append(f"client {number} step {step}: {answer.header.revision} after {newest}")
                newest = max(newest, answer.header.revision)
                for entry in getattr(answer, "kvs", []):
                    if entry.mod_revision < own.get(entry.key, 0):
                        failures.append(f"client {number} step {step} misses its own write")

    def disturb():
        with Caller(direct.address) as caller:
            number = 0
            while not stop.wait(0.003):
                caller.put(keys[number % 3], b"direct-%d" % number)
                number += 1

    workers = [threading.Thread(target=work, args=[number]) for number in range(6)]
    disturber = threading.Thread(target=disturb)
    disturber.start()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    stop.set()
    disturber.join()
    assert not failures, failures[:5]


def test_errors_of_revisions_are_those_of_etcd(start, direct):
    started = start()
    with Reader(started.address) as client:
        revisions = [direct.put(b"rev", str(number).encode()).header.revision for number in range(5)]
        for _ in range(3):
            assert client.read(b"rev", revision=revisions[1]).kvs[0].value == b"1"
        assert hits(started) >= 1
        client.ok("KV/Compact", revision=revisions[3])
        for revision in [revisions[1], revisions[3], revisions[4], revisions[4] + 1000]:
            fields = {"key": b"rev", "revision": revision, "serializable": True}
            for _ in range(2):
                expected = direct.unary("KV/Range", request("KV/Range", **fields))
                found = client.unary("KV/Range", request("KV/Range", **fields))
                assert found[1] == expected[1]
                assert (found[0] and found[0].kvs) == (expected[0] and expected[0].kvs)
        # What is current is kept as before.
        warm(started, client, b"rev")


def test_what_is_bypassed_is_not_kept(start, direct):
    started = start("--bypass", "private/", "--bypass", "other/")
    with Reader(started.address) as client:
        for number in range(5):
            direct.put(b"private/x", str(number).encode())
            assert client.value(b"private/x") == str(number).encode()
            assert client.read(b"p", range_end=b"q").kvs[0].value == str(number).encode()
        for wish in ["cache", "all"]:
            for number in range(5):
                direct.put(b"asked", str(number).encode())
                answer, _ = client.unary(
                    "KV/Range", request("KV/Range", key=b"asked", serializable=True), metadata=[("ringway-bypass", wish)])
                assert answer.kvs[0].value == str(number).encode()
        assert metric(started, "etcd_grpc_proxy_cache_keys_total") == 0


def test_off_is_off(start, direct):
    started = start("--cache=off")
    with Reader(started.address) as client:
        for number in range(10):
            direct.put(b"off", str(number).encode())
            assert client.value(b"off") == str(number).encode()
        assert metric(started, "etcd_grpc_proxy_cache_misses_total") == 0


def test_without_staleness_only_what_a_watch_keeps_is_shown(start, direct):
    started = start("--cache-max-staleness=0")
    with Reader(started.address) as client:
        direct.put(b"strict", b"0")
        warm(started, client, b"strict")


def test_consistent_reads_are_never_behind(start, direct, store):
    started = start("--consistent-cache")
    with Reader(started.address) as client:
        for number in range(300):
            direct.put(b"c", str(number).encode())
            if number % 3 == 0:
                direct.put(b"beside", b"")
            for _ in range(3):
                assert client.ok("KV/Range", key=b"c").kvs[0].value == str(number).encode()
        if store.release != "3.4":
            assert metric(started, "ringway_read_indexes_total") > 0
            until(lambda: client.ok("KV/Range", key=b"c") and hits(started) > 0,
                  what="a consistent answer from the cache")


def test_identical_reads_go_together(start, direct):
    started = start("--threads", "1")
    direct.ok("KV/Put", key=b"big", value=b"x" * 500_000)
    with Reader(started.address) as client:
        for _ in range(20):
            calls = [client.future("KV/Range", request("KV/Range", key=b"big")) for _ in range(30)]
            assert all(len(call.result().kvs[0].value) == 500_000 for call in calls)
        assert metric(started, "ringway_reads_shared_total") > 0


def test_keepers_survive_the_loss_of_etcd(start, proxy, tmp_path):
    member = Etcd("lonely", tmp_path)
    member.start()
    until(member.is_healthy, 40, "etcd")
    try:
        started = proxy("--endpoints", member.client)
        with Reader(started.address) as client:
            client.put(b"kept", b"0")
            warm(started, client, b"kept")
            for number in range(1, 4):
                member.kill()
                member.start()
                until(member.is_healthy, 40, "etcd")
                value = str(number).encode()
                with Caller(member.client) as direct:
                    direct.put(b"kept", value)
                    until(lambda: client.value(b"kept") == value, what="the write after the restart")
                    warm(started, client, b"kept")
                    value = b"after " + value
                    direct.put(b"kept", value)
                    until(lambda: client.value(b"kept") == value, what="a write while the cache is warm")
    finally:
        member.end()


# Identity


@pytest.fixture(scope="module", params=["3.4", "3.5"])
def guarded(request, tmp_path_factory, authority):
    made = Place(request.param, False, True, authority, tmp_path_factory.mktemp("guarded"))
    yield made
    made.close()


def test_nothing_is_shown_across_users(guarded, proxy):
    started = proxy(*guarded.proxy_flags())
    guarded.login()
    with Reader(started.address) as client, Caller(guarded.etcd.client) as direct:
        def login(user, through=client):
            return through.ok("Auth/Authenticate", name=user, password=PASSWORDS[user]).token

        def read(token, key):
            return client.unary("KV/Range", request("KV/Range", key=key, serializable=True),
                                metadata=[("token", token)] if token else [])

        tokens = {"root": login("root"), "alice": login("alice"), "": "", "forged": "forged.1"}
        put = request("KV/Put", key=b"secret", value=b"1")
        assert client.unary("KV/Put", put, metadata=[("token", tokens["root"])])[1]["code"] == "OK"

        def answered():
            before = hits(started)
            assert read(tokens["root"], b"secret")[0].kvs[0].value == b"1"
            return hits(started) > before
        until(answered, what="an answer from the cache")
        for _ in range(3):
            for user in ["alice", "", "forged"]:
                expected = direct.unary("KV/Range", request("KV/Range", key=b"secret", serializable=True),
                                        metadata=[("token", tokens[user])] if user else [])
                found = read(tokens[user], b"secret")
                assert found[0] is None and found[1] == expected[1]
            assert read(tokens["root"], b"secret")[0].kvs[0].value == b"1"
        # Another token of the same user is as good, once etcd has seen it.
        assert read(login("root", direct), b"secret")[0].kvs[0].value == b"1"
        before = hits(started)
        again = login("root")
        for _ in range(3):
            assert read(again, b"secret")[0].kvs[0].value == b"1"
        assert hits(started) - before >= 2


def test_rights_that_are_taken_away_are_gone_at_once(guarded, proxy):
    started = proxy(*guarded.proxy_flags())
    guarded.login()
    with Reader(started.address) as client:
        root = client.ok("Auth/Authenticate", name="root", password=PASSWORDS["root"]).token

        def as_root(method, /, **fields):
            answer, ended = client.unary(method, request(method, **fields), metadata=[("token", root)])
            assert ended["code"] == "OK", ended
            return answer

        as_root("KV/Put", key=b"a/granted", value=b"1")
        alice = client.ok("Auth/Authenticate", name="alice", password=PASSWORDS["alice"]).token

        def read():
            return client.unary("KV/Range", request("KV/Range", key=b"a/granted", serializable=True),
                                metadata=[("token", alice)])

        def answered():
            before = hits(started)
            assert read()[1]["code"] == "OK"
            return hits(started) > before
        until(answered, what="an answer from the cache")
        as_root("Auth/RoleRevokePermission", role="limited", key=b"a/", range_end=b"a0")
        try:
            assert read()[1]["code"] in ("PERMISSION_DENIED", "UNAUTHENTICATED", "INVALID_ARGUMENT")
        finally:
            as_root("Auth/RoleGrantPermission", name="limited",
                    perm={"permType": 2, "key": b"a/", "range_end": b"a0"})


def test_namespaces_are_cached_as_their_clients_see_them(start, direct):
    started = start("--namespace", "ns/")
    with Reader(started.address) as client:
        direct.put(b"ns/x", b"0")
        direct.put(b"x", b"outside")
        warm(started, client, b"x")
        warm(started, client, **EVERYTHING)
        assert [entry.key for entry in client.read(**EVERYTHING).kvs] == [b"x"]
        direct.put(b"ns/x", b"1")
        until(lambda: client.value(b"x") == b"1" and client.read(**EVERYTHING).kvs[0].value == b"1",
              what="the write")
        client.put(b"x", b"2")
        assert client.value(b"x") == b"2" and client.read(**EVERYTHING).kvs[0].value == b"2"
