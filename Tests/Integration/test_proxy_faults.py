"""The gRPC proxy under load while etcd's members fail, connections break and clients vanish."""

import os
import random
import shutil
import signal
import sys

import pytest

from support import net
from support.call_load import Load, request
from support.calls import Client
from support.etcds import Cluster, Etcd
from support.grpc_proxy import GrpcProxy
from support.islands import Islands
from support.proxy_state import client_connections, open_calls, page, sample, wait_until_idle, watchers
from support.raw_client import RawClient
from support.relay import Relay
from support.schema import METHODS
from support.waiting import Stopwatch, until

FAULTS = int(os.environ.get("RINGWAY_FAULTS", "12"))
SEED = int(os.environ.get("RINGWAY_SEED", "1"))
LONGEST = 8.0       # seconds that reads may be without an answer, an election included
WATCH = METHODS["Watch/Watch"].path

with_islands = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("iptables"), reason="needs root, iproute2 and iptables")


@pytest.fixture
def proxy(backend):
    """Starts proxies; each must end with status 0."""
    running = []

    def start(*arguments, expect=0, **options):
        made = GrpcProxy("--io-backend", backend, "--enable-pprof", *map(str, arguments), **options)
        running.append((made, expect))
        return made

    yield start
    for made, expect in running:
        status = made.end()
        assert expect is None or status == expect, made.log


@pytest.fixture
def client():
    made = []

    def connect(address):
        made.append(Client(address))
        return made[-1]

    yield connect
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def islands():
    made = Islands(3)
    yield made
    made.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, islands):
    """Three members, each on an island of its own."""
    made = Cluster(
        tmp_path_factory.mktemp("cluster"), [(island.address, island.launcher) for island in islands.all])
    yield made
    made.end()


@pytest.fixture
def own_etcd(tmp_path):
    """An etcd that the test may break."""
    member = Etcd("own", tmp_path)
    yield member
    member.end()


def started(member):
    member.start()
    until(member.is_healthy, 40, "etcd", pause=0.05)
    return member


def say(text):
    """Figures for whoever runs with -s."""
    print(text, file=sys.stderr)


# Members


class Members:
    """A cluster, with a client for each member that does not go through the proxy."""

    def __init__(self, cluster, islands, client):
        self.members = cluster.members
        self.islands = islands.all
        self.cluster = cluster
        self.clients = [client(member.client) for member in cluster.members]
        self.ids = [self.status(index).header.member_id for index in range(len(self.members))]

    def status(self, index):
        return self.clients[index].unary("Maintenance/Status", request("Maintenance/Status"))[0]

    def leader(self):
        def find():
            for index in range(len(self.members)):
                status = self.status(index)
                if status and status.leader:
                    return self.ids.index(status.leader) + 1
            return None

        return until(find) - 1

    def used(self, through):
        """The member that answers calls through the proxy."""
        answer = until(lambda: through.unary("KV/Range", request("KV/Range", key=b"pulse"))[0])
        return self.ids.index(answer.header.member_id)

    def fail(self, index, fault):
        if fault == "kill":
            self.members[index].kill()
        elif fault == "stop":
            self.members[index].signal(signal.SIGSTOP)
        else:
            self.islands[index].cut_off()

    def mend(self, index, fault):
        if fault == "kill":
            self.members[index].start()
        elif fault == "stop":
            self.members[index].signal(signal.SIGCONT)
        else:
            self.islands[index].rejoin()

    def another(self, index):
        return self.clients[(index + 1) % len(self.clients)]


@with_islands
def test_members_fail(proxy, cluster, islands, client, backend):
    """The member in use and the leader are killed, stopped and cut off, one after the other, under load: at least half of
    it on each interface of the kernel."""
    cluster.wait_until_healthy()
    made = proxy("--endpoints", cluster.endpoints)
    members = Members(cluster, islands, client)
    through = client(made.address)
    kinds = [("kill", "in use"), ("stop", "leader"), ("cut off", "in use"),
             ("kill", "leader"), ("stop", "in use"), ("cut off", "leader")]
    half = len(kinds) // 2
    first = half if backend == "epoll" else 0
    with Load(made.address) as load:
        until(load.more(), 30)
        until(load.pulse(members.clients[0]))
        for number in range(first, first + max(half, FAULTS // 10)):
            fault, whom = kinds[number % len(kinds)]
            index = members.used(through) if whom == "in use" else members.leader()
            for caller in load.readers + load.writers:
                caller.outage = 0
            before = sum(len(worker.ends) for worker in load.watchers + load.keepers)
            members.fail(index, fault)
            watch = Stopwatch()
            try:
                until(load.more(), 30, f"calls after {fault} of {whom}")
                until(load.pulse(members.another(index)), 30, f"events after {fault} of {whom}")
                recovered = watch.seconds
            finally:
                members.mend(index, fault)
            cluster.wait_until_healthy()
            until(load.more(), 30, "calls after all was well")
            until(load.pulse(members.clients[index]), 30, "events after all was well")
            ends = sum(len(worker.ends) for worker in load.watchers + load.keepers) - before
            say(f"{fault} {whom}: longest without a read {load.outage(load.readers):.2f} s, without a write "
                f"{load.outage(load.writers):.2f} s, all back after {recovered:.2f} s, {ends} streams ended")
            assert load.outage(load.readers) < LONGEST
        load.stop()
        say(f"reads {load.codes(load.readers)}, writes {load.codes(load.writers)}")
        assert not load.problems
    through.close()
    wait_until_idle(made, cluster.members)


@with_islands
def test_endpoints_follow_the_member_list(proxy, cluster, islands, client):
    """Only one member is named; when it is gone the others, learned from the member list, serve."""
    cluster.wait_until_healthy()
    made = proxy("--endpoints", cluster.members[0].client, "--endpoints-auto-sync-interval", "1s")
    through = client(made.address)
    made.wait_for("set etcd endpoints by autoSync")
    cluster.members[0].kill()
    try:
        until(lambda: through.unary("KV/Range", request("KV/Range", key=b"a"), timeout=5)[0], 10)
    finally:
        cluster.members[0].start()
        cluster.wait_until_healthy()


# One etcd


def test_etcd_comes_after_the_proxy(proxy, own_etcd, client):
    """What etcd's clients mark to wait for a connection waits; the rest is told at once."""
    made = proxy("--endpoints", own_etcd.client)
    through = client(made.address)
    assert through.unary("Maintenance/Status", request("Maintenance/Status"))[1]["code"] == "UNAVAILABLE"
    short = Stopwatch()
    _, status = through.unary("KV/Range", request("KV/Range", key=b"a"), timeout=0.5)
    assert status["code"] == "DEADLINE_EXCEEDED"
    assert short.seconds < 3
    waiting = [through.future("KV/Put", request("KV/Put", key=b"a", value=b"1")) for _ in range(3)]
    watch = through.stream("Watch/Watch", request("Watch/Watch", create_request={"key": b"b"}))
    until(lambda: open_calls(made) == {"KV/Put": 3, "Watch/Watch": 1})
    started(own_etcd)
    for one in waiting:
        assert one.result(10).header.revision > 1
    assert watch.next(10).created
    watch.cancel()


def test_etcd_is_started_again(proxy, own_etcd, client):
    made = proxy("--endpoints", started(own_etcd).client)
    direct = client(own_etcd.client)
    with Load(made.address) as load:
        until(load.more())
        until(load.pulse(direct))
        for _ in range(2):
            own_etcd.kill()
            made.wait_for("endpoint is not reachable")
            started(own_etcd)
            watch = Stopwatch()
            until(load.more(), 30)
            until(load.pulse(direct), 30)
            say(f"all back {watch.seconds:.2f} s after etcd was healthy")
            assert watch.seconds < 10
        # Asked to stop, etcd says GOAWAY and ends its streams in order.
        own_etcd.signal(signal.SIGTERM)
        own_etcd.process.wait(30)
        own_etcd.output.close()
        started(own_etcd)
        until(load.more(), 30)
        until(load.pulse(direct), 30)
        load.stop()
        assert not load.problems
    wait_until_idle(made, [own_etcd])


# Connections


FAULTS_OF_A_CONNECTION = ["cut", "end", "stall", "inject", "refuse"]


@pytest.mark.parametrize("balance", ["sticky", "round-robin"])
def test_connections_fail(proxy, etcd, client, peers, balance):
    """Two ways to one etcd; connections are reset, closed, stalled, spoilt and refused in the middle of all."""
    ways = [peers.keep(Relay(etcd.client)) for _ in range(2)]
    made = proxy("--endpoints", ",".join(way.address for way in ways), "--balance", balance,
                 "--health-interval", "200ms", "--health-timeout", "200ms")
    direct = client(etcd.client)
    chance = random.Random(SEED)
    wait_until_idle(made, [etcd])
    with Load(made.address, pause=0.001) as load:
        until(load.more())
        until(load.pulse(direct))
        descriptors, memory = made.descriptors, made.private_bytes
        for number in range(FAULTS):
            fault = FAULTS_OF_A_CONNECTION[number % len(FAULTS_OF_A_CONNECTION)]
            # Now and then both at once, so that there is nowhere to go.
            hit = ways if chance.random() < 0.2 else [max(ways, key=lambda way: len(way.pairs))]
            for way in hit:
                getattr(way, fault)()
            if hit != ways or fault in ("cut", "end", "inject"):
                until(load.more(5), 20, f"calls during {fault}")
                until(load.pulse(direct), 20, f"events during {fault}")
            for way in hit:
                way.heal()
            until(load.more(5), 20, f"calls after {fault} of {len(hit)}")
            until(load.pulse(direct), 20, f"events after {fault} of {len(hit)}")
        until(lambda: made.descriptors <= descriptors + 8, what=f"few descriptors, from {descriptors}")
        grown = made.private_bytes - memory
        load.stop()
        say(f"{FAULTS} faults: reads {load.codes(load.readers)}, writes {load.codes(load.writers)}, longest "
            f"without a read {load.outage(load.readers):.2f} s, memory +{grown >> 10} KiB")
        assert not load.problems
        # A read is made again unless its answer had begun; none waits for its deadline.
        assert load.codes(load.readers).get("UNAVAILABLE", 0) <= FAULTS // 10, load.codes(load.readers)
        assert load.codes(load.readers).get("DEADLINE_EXCEEDED", 0) == 0, load.codes(load.readers)
        assert grown < 8 << 20
    wait_until_idle(made, [etcd])


# Clients


def calls_of_watches(raw, count):
    message = request("Watch/Watch", create_request={"key": b"nobody"})
    return [raw.call(WATCH, message) for _ in range(count)]


def test_ten_thousand_streams_are_cancelled(proxy, etcd):
    made = proxy("--endpoints", etcd.client)
    wait_until_idle(made, [etcd])
    clients = [RawClient(made.address) for _ in range(10)]
    memory = None
    for _ in range(5):
        for raw in clients:
            calls = calls_of_watches(raw, 200)
            raw.send(*(frames for frames, _ in calls))
            raw.wait_for_data(100)
            raw.send(*(raw.cancel(stream) for _, stream in calls))
        until(lambda: not open_calls(made))
        memory = memory or made.private_bytes
    until(lambda: watchers(etcd) == 0)
    assert made.private_bytes < memory + (4 << 20)
    for raw in clients:
        raw.close()
    wait_until_idle(made, [etcd])
    assert "ringway_proxy_errors_total{blame=\"proxy\"} 0" in page(made, "/proxy/metrics")


def test_clients_vanish(proxy, etcd):
    """By reset, by an end, by something that is no HTTP/2: what they had open at etcd ends."""
    made = proxy("--endpoints", etcd.client)
    wait_until_idle(made, [etcd])
    descriptors = made.descriptors
    clients = [RawClient(made.address) for _ in range(60)]
    for raw in clients:
        raw.send(*(frames for frames, _ in calls_of_watches(raw, 5)))
    for raw in clients:
        raw.wait_for_data(5)
    assert open_calls(made) == {"Watch/Watch": 300}
    assert client_connections(made) == 60
    for number, raw in enumerate(clients):
        if number % 3 == 0:
            raw.reset()
        elif number % 3 == 1:
            raw.close()
        else:
            raw.send(b"\0\0\1\0\0\0\0\0\0?")
            assert [kind for kind, *_ in raw.frames()][-1] == 7  # GOAWAY
    wait_until_idle(made, [etcd])
    # The connections to etcd stay.
    assert made.descriptors <= descriptors + 8
    for raw in clients[2::3]:
        raw.close()


# The end


def test_drain_under_load(proxy, etcd, client):
    """Calls under way are finished, streams are told to go elsewhere, nobody hangs."""
    made = proxy("--endpoints", etcd.client, "--drain-timeout", "10s")
    direct, through = client(etcd.client), client(made.address)
    assert through.unary("Lock/Lock", request("Lock/Lock", name=b"drain"))[0]
    holders = request("KV/Range", key=b"drain/", range_end=b"drain0")
    held = until(lambda: direct.unary("KV/Range", holders)[0].kvs)[0].key
    behind = through.future("Lock/Lock", request("Lock/Lock", name=b"drain"))
    until(lambda: open_calls(made).get("Lock/Lock") == 1)
    with Load(made.address) as load:
        until(load.more())
        made.signal(signal.SIGTERM)
        ends = [stream for stream in load.watchers + load.keepers]
        until(lambda: all(stream.ends for stream in ends), 5, "the end of all streams")
        for stream in ends:
            assert stream.ends[0]["code"] == "UNAVAILABLE"
            assert stream.ends[0]["text"] == "etcdserver: server stopped"
        assert not made.has_ended
        # The call that waits for the lock has it in the end, though the proxy is going away.
        direct.unary("KV/DeleteRange", request("KV/DeleteRange", key=held))
        key = behind.result(10).key
        assert made.wait() == 0
        load.stopped.set()
    direct.unary("KV/DeleteRange", request("KV/DeleteRange", key=key))
    assert not load.problems


def test_the_deadline_of_a_drain_is_told(proxy, etcd, client):
    made = proxy("--endpoints", etcd.client, "--drain-timeout", "500ms")
    direct, through = client(etcd.client), client(made.address)
    lock = direct.unary("Lock/Lock", request("Lock/Lock", name=b"late"))[0]
    behind = through.future("Lock/Lock", request("Lock/Lock", name=b"late"))
    until(lambda: open_calls(made).get("Lock/Lock") == 1)
    made.signal(signal.SIGTERM)
    watch = Stopwatch()
    error = behind.exception(10)
    assert (error.code().name, error.details()) == ("UNAVAILABLE", "etcdserver: server stopped")
    assert made.wait() == 0
    assert watch.seconds < 3
    direct.unary("KV/DeleteRange", request("KV/DeleteRange", key=lock.key))
