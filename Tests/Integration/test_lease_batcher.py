"""Heartbeats of many clients on one stream to etcd. What etcd itself counts decides."""

import itertools
import os
import random
import signal
import threading
import time
import urllib.request

import pytest

from support.beater import Beater, beat
from support.etcds import Cluster, Etcd
from support.grpc_calls import Caller
from support.grpc_proxy import GrpcProxy, IS_OURS
from support.proxy_state import page, sample, wait_until_idle
from support.waiting import Stopwatch, until

pytestmark = pytest.mark.skipif(not IS_OURS, reason="etcd's proxy has a batcher of its own kind")

LEASES = itertools.count(0x5000)
# For the leases that outlive faults: 50,000 for ten minutes take RINGWAY_LEASES=50000 RINGWAY_SECONDS=600.
MANY, SECONDS = int(os.environ.get("RINGWAY_LEASES", "2000")), int(os.environ.get("RINGWAY_SECONDS", "12"))
NAME = 'grpc_method="LeaseKeepAlive"'


def lines(text, name):
    """The sum of the samples of LeaseKeepAlive."""
    return sample("\n".join(line for line in text.splitlines() if NAME in line), name)


def metrics(etcd):
    with urllib.request.urlopen(f"http://{etcd.client}/metrics", timeout=5) as answer:
        return answer.read().decode()


def streams(etcd):
    """Streams of heartbeats that an etcd has open."""
    text = metrics(etcd)
    return lines(text, "grpc_server_started_total") - lines(text, "grpc_server_handled_total")


def heartbeats(etcd):
    return lines(metrics(etcd), "grpc_server_msg_received_total")


@pytest.fixture
def own(tmp_path):
    """An etcd whose figures are this test's."""
    made = Etcd("own", tmp_path)
    made.start()
    until(made.is_healthy, 40, "etcd", pause=0.05)
    yield made
    made.end()


@pytest.fixture
def proxy(backend):
    running = []

    def start(*arguments):
        running.append(GrpcProxy("--io-backend", backend, "--enable-pprof", *map(str, arguments)))
        return running[-1]

    yield start
    for made in running:
        assert made.end() == 0, made.log


@pytest.fixture
def caller():
    made = []

    def connect(address):
        made.append(Caller(address))
        return made[-1]

    yield connect
    for one in made:
        one.close()


def granted(client, seconds=600):
    lease = next(LEASES)
    client.ok("Lease/LeaseGrant", ID=lease, TTL=seconds)
    return lease


def keep(client, lease, **options):
    """A stream with one heartbeat that etcd has answered."""
    stream = client.stream("Lease/LeaseKeepAlive", beat(lease), **options)
    assert stream.next(20).TTL > 0
    return stream


def test_ten_thousand_leases_on_a_thousand_streams_are_one_stream(proxy, own, caller):
    made = proxy("--endpoints", own.client, "--threads", 2)
    direct = caller(own.client)
    alive = [granted(direct) for _ in range(200)]
    unknown = itertools.count(0x900000)
    clients = [Beater(made.address) for _ in range(20)]
    pool = iter(alive)
    for client in clients:
        for _ in range(50):
            client.open([next(pool, None) or next(unknown) for _ in range(10)])
    for client in clients:
        for lease, life in client.check().items():
            assert life == (600 if lease in alive else 0)
    assert streams(own) == 1
    assert heartbeats(own) == 10_000
    text = page(made, "/proxy/metrics")
    assert sample(text, "ringway_proxy_heartbeats_received_total") == 10_000
    assert sample(text, "ringway_proxy_heartbeats_sent_total") == 10_000
    assert sample(text, "ringway_proxy_heartbeats_waiting") == 0
    until(lambda: sample(page(made, "/proxy/metrics"), "ringway_proxy_lease_streams") == 1)
    for client in clients:
        client.close()
    wait_until_idle(made)
    until(lambda: streams(own) == 0)


def test_heartbeats_of_one_lease_are_shared(proxy, own, caller):
    """A thousand streams keep the same lease alive, over both cores: etcd hears of it far less often."""
    made = proxy("--endpoints", own.client, "--threads", 2)
    lease = granted(caller(own.client))
    clients = [Beater(made.address) for _ in range(20)]
    for client in clients:
        for _ in range(50):
            client.open([lease] * 10)
    for client in clients:
        assert client.check() == {lease: 600}
        client.close()
    assert heartbeats(own) < 5_000


def test_a_lease_that_is_gone_is_answered_with_zero_and_the_stream_goes_on(proxy, own, caller):
    made = proxy("--endpoints", own.client)
    client = caller(made.address)
    lease, other = granted(client), granted(client)
    stream = keep(client, lease)
    client.ok("Lease/LeaseRevoke", ID=lease)
    stream.send(beat(lease))
    answer = stream.next()
    assert (answer.ID, answer.TTL) == (lease, 0)
    stream.send(beat(other))
    assert stream.next().TTL == 600
    stream.half_close()
    assert stream.next() is None
    assert stream.ended["code"] == "OK"


def test_what_was_asked_before_a_half_close_is_answered(proxy, own, caller):
    made = proxy("--endpoints", own.client, "--threads", 2)
    client = caller(made.address)
    leases = [granted(client) for _ in range(20)]
    several = [caller(made.address).stream("Lease/LeaseKeepAlive", *map(beat, leases * 5)) for _ in range(4)]
    for stream in several:
        stream.half_close()
    for stream in several:
        assert [answer.ID for answer in stream.rest(20)] == leases * 5
        assert stream.ended["code"] == "OK"


def test_the_leases_of_a_client_that_dies_run_out(proxy, own, caller):
    """Its last heartbeats are its own: nobody goes on for it, and the others' go on."""
    made = proxy("--endpoints", own.client, "--threads", 2)
    direct = caller(own.client)
    dying, living = (granted(direct, 2) for _ in range(2))
    for lease in (dying, living):
        direct.ok("KV/Put", key=b"k%d" % lease, value=b"v", lease=lease)
    beater = Beater(made.address)
    beater.open([dying])
    beater.check()
    stream = keep(caller(made.address), living)
    beater.reset()
    watch = Stopwatch()

    def is_gone():
        stream.send(beat(living))
        assert stream.next().TTL == 2
        return direct.get(b"k%d" % dying) is None

    until(is_gone, 10, pause=0.1)
    # One TTL, and etcd's slack: it looks every half second.
    assert 1 < watch.seconds < 4.5
    assert direct.get(b"k%d" % living) == b"v"


def test_etcd_is_started_again(proxy, own, caller):
    """The streams stay open; a heartbeat that was asked for meanwhile is answered afterwards."""
    made = proxy("--endpoints", own.client, "--threads", 2)
    clients = [caller(made.address) for _ in range(6)]
    kept = [(lease, keep(client, lease)) for client in clients for lease in [granted(client)]]
    own.kill()
    for lease, stream in kept:
        stream.send(beat(lease))
    own.start()
    until(own.is_healthy, 40, "etcd", pause=0.05)
    for lease, stream in kept:
        answer = stream.next(20)
        assert (answer.ID, answer.TTL) == (lease, 600)
    assert streams(own) == 1
    assert heartbeats(own) == len(kept)


def test_users_have_streams_of_their_own(proxy, own, caller):
    direct = caller(own.client)
    for user in ["root", "alice"]:
        direct.ok("Auth/UserAdd", name=user, password="p")
    direct.ok("Auth/UserGrantRole", user="root", role="root")
    leases = [granted(direct) for _ in range(5)]
    direct.ok("Auth/AuthEnable")
    made = proxy("--endpoints", own.client, "--threads", 2)
    client = caller(made.address)

    def token(user):
        return [("token", client.ok("Auth/Authenticate", name=user, password="p").token)]

    # Each of a user's clients has a token of its own.
    several = [keep(caller(made.address), lease, metadata=token(user))
               for lease in leases for user in ["root", "alice", "alice"]]
    assert streams(own) == 2
    several.append(keep(client, leases[0]))
    assert streams(own) == 3
    for stream in several:
        stream.send(beat(leases[0]))
        assert stream.next().TTL == 600
    assert streams(own) == 3


def test_a_client_may_want_a_stream_of_its_own(proxy, own, caller):
    made = proxy("--endpoints", own.client)
    client = caller(made.address)
    lease = granted(client)
    _ = [keep(client, lease, metadata=[("ringway-bypass", "all")]) for _ in range(3)]
    assert streams(own) == 3
    _ = [keep(client, lease) for _ in range(3)]
    assert streams(own) == 4


def test_two_proxies_in_a_row_are_one_stream(proxy, own, caller):
    inner = proxy("--endpoints", own.client, "--threads", 2)
    outers = [proxy("--endpoints", inner.address, "--threads", 2) for _ in range(2)]
    leases = [granted(caller(own.client)) for _ in range(10)]
    kept = [(lease, keep(caller(outer.address), lease)) for lease in leases for outer in outers]
    assert streams(own) == 1
    until(lambda: sample(page(inner, "/proxy/metrics"), "ringway_proxy_heartbeats_received_total") >= 20)
    for lease, stream in kept:
        stream.send(beat(lease))
        assert stream.next().TTL == 600
    assert 'grpc_method="LeaseKeepAlive"} 2' in "\n".join(
        line for line in page(inner, "/proxy/metrics").splitlines() if "started" in line)


@pytest.mark.parametrize("bad", [b"\x08\x80", b"\x08" + b"\xff" * 11])
def test_what_is_no_heartbeat_is_refused_as_by_etcd(proxy, own, caller, bad):
    made = proxy("--endpoints", own.client)
    ends = []
    for address in [own.client, made.address]:
        client = caller(address)
        lease = granted(client)
        stream = client.stream("Lease/LeaseKeepAlive", beat(lease), bad)
        assert stream.next().TTL == 600
        assert stream.next() is None
        ends.append(stream.ended["code"])
    assert ends[0] == ends[1]


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path, [("127.0.0.1", ())] * 3)
    yield made
    made.end()


def test_no_leader(proxy, cluster, caller):
    """Streams that asked for a leader end with etcd's words; the others wait, and are answered when there is one."""
    made = proxy("--endpoints", cluster.endpoints, "--threads", 2)
    client = caller(made.address)
    lease = granted(client)
    asked = [keep(caller(made.address), lease, metadata=[("hasleader", "true")]) for _ in range(4)]
    others = [keep(caller(made.address), lease) for _ in range(4)]
    used = next(member for member in cluster.members if streams(member) > 0)
    for member in cluster.members:
        if member is not used:
            member.kill()
    for stream in asked:
        assert stream.next(20) is None
        assert stream.ended["code"] == "UNAVAILABLE"
        assert stream.ended["text"] == "etcdserver: no leader"
    for stream in others:
        stream.send(beat(lease))
    for member in cluster.members:
        if member is not used:
            member.start()
    cluster.wait_until_healthy()
    for stream in others:
        assert stream.next(30).TTL == 600


class Faults:
    """One member after the other is killed, or stopped for a moment, until the end."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.happened = threading.Semaphore(0)
        self.count = 0
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join()

    def run(self):
        chance = random.Random(1)
        while not self.ending.wait(1):
            member = chance.choice(self.cluster.members)
            if chance.random() < 0.5:
                member.kill()
                member.start()
            else:
                member.signal(signal.SIGSTOP)
                self.ending.wait(2)
                member.signal(signal.SIGCONT)
            self.cluster.wait_until_healthy()
            self.count += 1
            self.happened.release()


def test_leases_outlive_faults(proxy, cluster, caller):
    """Those whose clients beat in time live on, whatever becomes of the members."""
    made = proxy("--endpoints", cluster.endpoints, "--threads", 2)
    client = caller(cluster.members[0].client)
    ttl = max(12, MANY // 200)
    leases = [granted(client, ttl) for _ in range(MANY)]
    beater = Beater(made.address)
    for place in range(0, MANY, 500):
        beater.open(leases[place:place + 500])
    # One round was sent as the streams were opened.
    assert min(beater.check().values()) > 0
    with Faults(cluster) as faults:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            beater.beat()
            lives = beater.check()
            assert len(lives) == MANY and min(lives.values()) > 0
            # As a client does: again in good time, whether or not something has happened.
            faults.happened.acquire(timeout=ttl / 4)
    assert faults.count > 0
