"""Shared watches and heartbeats when etcd fails: who has asked for a leader is told, the others do not notice."""

import signal

import pytest

from conformance.places import QUICK
from support.etcds import Cluster
from support.fronts import Setting, not_alone
from support.relay import Relay
from support.waiting import until
from support.watches import Log, Watches
from test_coalescing import below, sees
from test_coalescing_leases import Beats, grant

LEADER = [("hasleader", "true")]
NO_LEADER = {"code": "UNAVAILABLE", "text": "etcdserver: no leader"}


@pytest.fixture(scope="module")
def cluster(memory):
    folder = memory / "cluster"
    folder.mkdir()
    made = Cluster(folder, [("127.0.0.1", ())] * 3, extra=QUICK)
    yield made
    made.end()


@pytest.fixture
def of_three(cluster):
    """A proxy before the first of three members."""
    cluster.wait_until_healthy()
    made = Setting(cluster.members[0])
    yield made
    made.close()


def end_of_stream(stream):
    while stream.next(15) is not None:
        pass
    return {name: stream.ended[name] for name in ["code", "text"]}


def test_no_leader(of_three, cluster, key):
    """Quorum is lost: exactly the streams that asked for a leader end, and new ones are refused."""
    log = Log(of_three.direct, key)
    log.some()
    lease = grant(of_three)
    plain = [Watches(client, below(key), below(key, start_revision=log.revision)).created()
             for client in of_three.connections(3)]
    strict = [Watches(client, below(key), metadata=LEADER).created() for client in of_three.connections(3)]
    strict.append(Watches(of_three.connect(), below(key), metadata=LEADER).created())
    beats = [Beats(of_three.connect(), metadata) for metadata in [(), LEADER]]
    for stream in beats:
        stream.beat(lease)
    # Without a watch, or a heartbeat, there is nothing else at etcd that would end.
    bare = [of_three.connect().stream(name, metadata=LEADER, timeout=None)
            for name in ["Watch/Watch", "Lease/LeaseKeepAlive"]]
    log.some()
    sees(plain + strict, log)
    try:
        for member in cluster.members[1:]:
            member.signal(signal.SIGSTOP)
        for stream in strict:
            assert end_of_stream(stream.stream) == NO_LEADER
        assert end_of_stream(beats[1].stream) == NO_LEADER
        bare.append(of_three.connect().stream("Watch/Watch", metadata=LEADER, timeout=None))
        for stream in bare:
            assert end_of_stream(stream) == NO_LEADER
        late = Beats(of_three.connect(), LEADER)
        late.send(lease)
        for stream in [Watches(of_three.connect(), below(key), metadata=LEADER), late]:
            assert end_of_stream(stream.stream) == NO_LEADER
        assert all(stream.stream.ended is None for stream in plain)
    finally:
        for member in cluster.members[1:]:
            member.signal(signal.SIGCONT)
    cluster.wait_until_healthy()
    log.some()
    sees(plain, log)
    assert beats[0].beat(lease) == [(lease, 1000)]
    back = Watches(of_three.connect(), below(key), metadata=LEADER).created()
    log.some()
    sees([*plain, back], log)


@not_alone
def test_etcd_is_started_again(setting, key):
    """Nothing is lost, nothing is created twice, what is asked for meanwhile is answered afterwards."""
    log = Log(setting.direct, key)
    log.some()
    lease = grant(setting)
    streams = [Watches(client, *[below(key)] * 5, {"key": log.key(1), "prev_kv": True}).created()
               for client in setting.connections(10)]
    streams += [Watches(setting.connect(), below(key, start_revision=log.revision + 40)).created()]
    # One that has nothing to wait for.
    streams += [Watches(setting.connect(), below(b"idle" + key)).created()]
    beats = [Beats(client) for client in setting.connections(2)]
    for stream in beats:
        stream.beat(lease)
    log.some()
    sees(streams, log)
    for _ in range(2):
        setting.etcd.kill()
        late = Watches(setting.connect(), below(key, start_revision=log.events[0].revision))
        streams[0].ask_for_progress()
        for stream in beats:
            stream.send(lease)
        setting.etcd.start()
        until(setting.etcd.is_healthy, 40, "etcd", pause=0.05)
        log.some(20)
        for stream in [*streams, late]:
            stream.sees(log, 15)
        streams[0].until(lambda: streams[0].answers)
        # etcd 3.4.23 answers by another way than its events: a known fault of its own.
        if setting.etcd.release != "3.4":
            streams[0].check_answers(log)
        for stream in beats:
            assert stream.answers(1) == [(lease, 1000)]
        streams.append(late)
    setting.hang_up()
    setting.upstream.until_idle()


@not_alone
def test_connections_break(setting, peers, key):
    """Between the proxy and etcd, again and again, in the middle of everything."""
    relay = peers.keep(Relay(setting.etcd.client))
    broken = Setting(setting.etcd, endpoints=relay.address)
    try:
        log = Log(setting.direct, key, value=b"%d " + b"x" * 2000)
        log.some()
        streams = [Watches(client, below(key), below(key, start_revision=log.events[0].revision, prev_kv=True),
                           {"key": log.key(7)}).created() for client in broken.connections(10)]
        lease, beats = grant(setting), Beats(broken.connect())
        for number in range(12):
            log.some(4)
            beats.send(lease)
            [relay.cut, relay.end, relay.inject][number % 3]()
            log.some(4)
            if number % 4 == 3:
                for stream in streams:
                    stream.sees(log, 15)
            streams.append(Watches(broken.connect(), below(key, start_revision=log.revision)))
        for stream in streams:
            stream.sees(log, 15)
        assert beats.answers(12) == [(lease, 1000)] * 12
        until(lambda: setting.upstream.watchers <= 3)
    finally:
        broken.close()


@not_alone
def test_a_member_fails(cluster, key):
    """The proxy goes on at another member where it was, even one that lags behind."""
    cluster.wait_until_healthy()
    made = Setting(cluster.members[0], endpoints=cluster.endpoints)
    clients = [made.connect(member.client) for member in cluster.members]
    try:
        log = Log(made.direct, key)
        streams = [Watches(client, below(key), below(key, progress_notify=True)).created()
                   for client in made.connections(10)]
        # One of them is the one in use, another the leader.
        for index, member in enumerate(cluster.members):
            log.some()
            sees(streams, log)
            log.client = clients[(index + 1) % 3]
            member.kill()
            try:
                # While there is no leader a write fails; this one has no other effect.
                until(lambda: log.client.unary("KV/Put", b"\x0a\x01x")[1]["code"] == "OK", 30)
                log.some()
                for stream in streams:
                    stream.sees(log, 15)
            finally:
                member.start()
            cluster.wait_until_healthy()
        log.some()
        sees(streams, log)
    finally:
        made.close()
