"""Registration under --resolver-prefix, what member lists say, and endpoints from etcd's member list."""

import json
import signal
import socket
import uuid

import pytest

from support.etcds import Etcd, etcdctl
from support.grpc_calls import Caller
from support.net import free_port
from support.waiting import until

# Short elections: the shortest lease is one and a half of their time-outs.
QUICK = ["--heartbeat-interval", "20", "--election-timeout", "200"]


@pytest.fixture
def own_etcd(tmp_path):
    """An etcd that the test may end."""
    member = Etcd("own", tmp_path, extra=QUICK)
    member.start()
    until(member.is_healthy, 40, "etcd", pause=0.05)
    yield member
    member.end()


@pytest.fixture
def prefix():
    return f"proxies-{uuid.uuid4().hex}"


def entries(etcd, prefix):
    """What is registered: key and value by address."""
    with Caller(etcd.client) as caller:
        start = f"{prefix}/".encode()
        found = caller.ok("KV/Range", key=start, range_end=f"{prefix}0".encode()).kvs
        return {pair.key[len(start):].decode(): pair for pair in found}


def members(proxy):
    """The client URLs that the proxy's member list names, sorted."""
    with Caller(proxy.address) as caller:
        return sorted(url for member in caller.ok("Cluster/MemberList").members for url in member.clientURLs)


def registering(prefix, seconds=60):
    return ["--resolver-prefix", prefix, "--resolver-ttl", seconds]


def test_an_entry_in_etcds_own_format(proxy, etcd, prefix):
    address = f"127.0.0.1:{free_port()}"
    started = proxy(*registering(prefix), "--advertise-client-url", address)
    line = started.wait_for("registered session with lease")
    assert (line["addr"], line["lease-ttl"]) == (address, 60)
    pair = entries(etcd, prefix)[address]
    assert json.loads(pair.value) == {
        "Op": 0, "Addr": address, "Metadata": json.dumps({"name": socket.gethostname()}, separators=(",", ":"))}
    with Caller(etcd.client) as caller:
        assert caller.ok("Lease/LeaseTimeToLive", ID=pair.lease).grantedTTL == 60


def test_proxies_see_each_other_come_and_go(proxy, etcd, prefix):
    first = proxy(*registering(prefix), "--advertise-client-url", "http://first:1")
    second = proxy(*registering(prefix), "--advertise-client-url", "http://second:2")
    both = ["http://first:1", "http://second:2"]
    until(lambda: members(first) == both and members(second) == both, 15, "both")
    text = etcdctl(first.address, "member", "list")
    assert "http://first:1" in text and "http://second:2" in text
    with Caller(first.address) as caller:
        answer = caller.ok("Cluster/MemberList")
        assert {member.name for member in answer.members} == {socket.gethostname()}
        assert answer.header.cluster_id and answer.header.member_id
    second.signal(signal.SIGTERM)
    assert second.wait() == 0
    assert set(entries(etcd, prefix)) == {"http://first:1"}
    until(lambda: members(first) == both[:1], 15, "one")


def test_one_that_died_disappears_with_its_lease(proxy, own_etcd, prefix):
    first = proxy("--endpoints", own_etcd.client, *registering(prefix), "--advertise-client-url", "first:1")
    second = proxy("--endpoints", own_etcd.client, *registering(prefix, 1), "--advertise-client-url", "second:2",
                   expect=None)
    until(lambda: members(first) == ["first:1", "second:2"], 15, "both")
    second.signal(signal.SIGKILL)
    until(lambda: members(first) == ["first:1"], 15, "one")


def test_a_stranger_in_the_list(proxy, etcd, prefix):
    """An entry made by etcd's own library, one that cannot be read, and the end of both."""
    started = proxy(*registering(prefix), "--advertise-client-url", "first:1")
    started.wait_for("registered session with lease")
    with Caller(etcd.client) as caller:
        caller.put(f"{prefix}/other:2".encode(), b'{"Op":0,"Addr":"other:2","Metadata":"{\\"name\\":\\"box\\"}"}')
        caller.put(f"{prefix}/broken".encode(), b"nonsense")
        until(lambda: members(started) == ["first:1", "other:2"], 15, "the stranger")
        started.wait_for("unmarshal endpoint update failed")
        caller.ok("KV/DeleteRange", key=f"{prefix}/other:2".encode())
        until(lambda: members(started) == ["first:1"], 15, "one")


def test_an_entry_inside_the_namespace(proxy, etcd, prefix):
    started = proxy(*registering("inner"), "--namespace", f"{prefix}/", "--advertise-client-url", "first:1")
    started.wait_for("registered session with lease")
    assert set(entries(etcd, f"{prefix}/inner")) == {"first:1"}
    until(lambda: members(started) == ["first:1"], 15, "itself")


def test_a_lease_that_is_taken_away(proxy, etcd, prefix):
    started = proxy(*registering(prefix, 3), "--advertise-client-url", "first:1")
    started.wait_for("registered session with lease")
    lease = entries(etcd, prefix)["first:1"].lease
    with Caller(etcd.client) as caller:
        caller.ok("Lease/LeaseRevoke", ID=lease)
    started.wait_for("session expired; possible network partition or server restart")
    started.wait_for("registered session with lease", count=2)
    assert entries(etcd, prefix)["first:1"].lease not in (0, lease)


def test_an_outage_shorter_than_the_lease(proxy, own_etcd, prefix):
    started = proxy("--endpoints", own_etcd.client, *registering(prefix, 60), "--advertise-client-url", "first:1")
    started.wait_for("registered session with lease")
    own_etcd.kill()
    started.wait_for("watching endpoints interrupted")
    own_etcd.start()
    until(own_etcd.is_healthy, 40, "etcd", pause=0.05)
    with Caller(own_etcd.client) as caller:
        caller.put(f"{prefix}/other:2".encode(), b'{"Op":0,"Addr":"other:2"}')
    until(lambda: members(started) == ["first:1", "other:2"], 20, "the list anew")
    assert len(started.find("registered session with lease")) == 1
    assert set(entries(own_etcd, prefix)) == {"first:1", "other:2"}


def test_an_outage_longer_than_the_lease(proxy, own_etcd, prefix):
    started = proxy("--endpoints", own_etcd.client, *registering(prefix, 1), "--advertise-client-url", "first:1")
    started.wait_for("registered session with lease")
    own_etcd.kill()
    started.wait_for("session expired; possible network partition or server restart")
    own_etcd.start()
    started.wait_for("registered session with lease", count=2, seconds=30)
    assert set(entries(own_etcd, prefix)) == {"first:1"}
    until(lambda: members(started) == ["first:1"], 15, "itself")


def test_a_start_before_etcd(proxy, own_etcd, prefix):
    own_etcd.kill()
    started = proxy("--endpoints", own_etcd.client, *registering(prefix), "--advertise-client-url", "first:1")
    own_etcd.start()
    started.wait_for("registered session with lease", seconds=30)
    assert set(entries(own_etcd, prefix)) == {"first:1"}


def test_member_list_without_registration(proxy, etcd):
    default = proxy()
    assert members(default) == ["127.0.0.1:23790"]
    assert members(proxy("--advertise-client-url", "http://here:7")) == ["http://here:7"]
    with Caller(etcd.client) as direct, Caller(proxy("--advertise-client-url=").address) as through:
        one, other = direct.ok("Cluster/MemberList"), through.ok("Cluster/MemberList")
        assert one.members == other.members
        assert one.header.member_id == other.header.member_id


def test_endpoints_follow_the_member_list(proxy, own_etcd):
    port = own_etcd.client.rpartition(":")[2]
    started = proxy("--endpoints", f"localhost:{port}", "--endpoints-auto-sync-interval", "200ms",
                    "--advertise-client-url", "")
    line = started.wait_for("set etcd endpoints by autoSync")
    assert line["endpoints"] == [f"http://{own_etcd.client}"]
    assert own_etcd.client in " ".join(started.wait_for("endpoints changed")["endpoints"])
    with Caller(started.address) as caller:
        watch = caller.watch(b"synced")
        caller.put(b"synced", b"1")
        assert watch.next().events[0].kv.value == b"1"
        watch.cancel()
    own_etcd.kill()
    started.wait_for("Auto sync endpoints failed.")
