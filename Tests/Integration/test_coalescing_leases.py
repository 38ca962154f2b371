"""Heartbeats that a proxy sends together: each client has its answers, in order, and no lease lives by the proxy."""

import threading
import time

from support.calls import SECONDS
from support.fronts import not_alone
from support.grpc_calls import request
from support.waiting import until

TTL = 3
SLACK = 2.0         # etcd looks for dead leases every half second, and the machine may be busy
UNKNOWN = 0x4711


class Beats:
    """A LeaseKeepAlive stream."""

    def __init__(self, client, metadata=()):
        self.stream = client.stream("Lease/LeaseKeepAlive", metadata=metadata, timeout=None)

    def send(self, *leases):
        for lease in leases:
            self.stream.send(request("Lease/LeaseKeepAlive", ID=lease))

    def answers(self, count, seconds=SECONDS):
        """Lease and TTL of the next answers."""
        found = []
        for _ in range(count):
            response = self.stream.next(seconds)
            assert response is not None, self.stream.ended
            assert response.header.cluster_id and response.header.member_id and response.header.raft_term
            found.append((response.ID, response.TTL))
        return found

    def beat(self, *leases):
        self.send(*leases)
        return self.answers(len(leases))


class Deaths(threading.Thread):
    """Sees when leases end, at etcd itself."""

    def __init__(self, client, leases):
        super().__init__(daemon=True)
        self.client, self.leases, self.moments = client, leases, {}
        self.stopped = threading.Event()
        self.start()

    def run(self):
        while not self.stopped.wait(0.05):
            alive = {lease.ID for lease in self.client.ok("Lease/LeaseLeases").leases}
            for kind, lease in self.leases.items():
                if lease not in alive:
                    self.moments.setdefault(kind, time.monotonic())


def grant(setting, seconds=1000):
    return setting.direct.ok("Lease/LeaseGrant", TTL=seconds).ID


@not_alone
def test_many_leases_on_many_streams_are_one(setting):
    leases = [grant(setting) for _ in range(100)]
    before = setting.upstream.beating_streams
    streams = [Beats(client) for client in setting.connections(30) for _ in range(2)]
    for _ in range(3):
        for number, stream in enumerate(streams):
            stream.send(*leases[number:number + 20])
        for number, stream in enumerate(streams):
            wanted = leases[number:number + 20]
            assert stream.answers(len(wanted)) == [(lease, 1000) for lease in wanted]
    assert setting.upstream.beating_streams - before <= 1
    assert setting.upstream.beating_streams == 1


def test_answers_are_in_the_order_of_the_requests(setting):
    """Known and unknown leases mixed, one of them more than once, while others ask for the same."""
    leases = [grant(setting, 1000 + number) for number in range(5)]
    ttl = dict(zip(leases, range(1000, 1005))) | {UNKNOWN: 0}
    asked = [leases[0], UNKNOWN, leases[1], leases[0], leases[4], UNKNOWN, leases[2], leases[0]]
    streams = [Beats(client) for client in setting.connections(10)]
    for turn in range(5):
        for stream in streams:
            stream.send(*asked[turn:], *asked[:turn])
        for stream in streams:
            wanted = asked[turn:] + asked[:turn]
            assert stream.answers(len(wanted)) == [(lease, ttl[lease]) for lease in wanted]


def test_a_lease_that_is_gone(setting):
    """Unknown, or revoked under its client: time to live 0, and the stream goes on."""
    lease, other = grant(setting), grant(setting)
    stream = Beats(setting.connect())
    assert stream.beat(UNKNOWN, lease) == [(UNKNOWN, 0), (lease, 1000)]
    setting.direct.ok("Lease/LeaseRevoke", ID=lease)
    assert stream.beat(lease, other, UNKNOWN) == [(lease, 0), (other, 1000), (UNKNOWN, 0)]


def test_half_close(setting):
    """What was asked for is answered, then the stream ends in order."""
    lease = grant(setting)
    streams = [Beats(client) for client in setting.connections(5)]
    for stream in streams:
        stream.send(*[lease, UNKNOWN] * 10)
        stream.stream.half_close()
    for stream in streams:
        assert stream.answers(20) == [(lease, 1000), (UNKNOWN, 0)] * 10
        assert stream.stream.next() is None
        assert stream.stream.ended["code"] == "OK"


def test_a_lease_dies_with_its_client(setting):
    """Within its time to live and not before: when the client is gone, and when it is just silent."""
    kinds = ["never beaten", "client gone", "stream gone", "silent", "kept"]
    leases = {kind: grant(setting, TTL) for kind in kinds}
    last = {kind: (time.monotonic(), time.monotonic()) for kind in kinds}
    deaths = Deaths(setting.direct, leases)
    clients = {kind: setting.connect() for kind in kinds[1:]}
    streams = {kind: Beats(client) for kind, client in clients.items()}

    def beat(kind):
        sent = time.monotonic()
        assert streams[kind].beat(leases[kind]) == [(leases[kind], TTL)]
        last[kind] = sent, time.monotonic()

    for _ in range(3):
        for kind in streams:
            beat(kind)
    clients["client gone"].close()
    streams["stream gone"].stream.cancel()

    def all_dead():
        if time.monotonic() - last["kept"][0] > 0.3:
            beat("kept")
        return len(deaths.moments) >= len(kinds) - 1

    until(all_dead, 4 * TTL + SLACK, pause=0.05)
    deaths.stopped.set()
    deaths.join()
    died = deaths.moments
    assert "kept" not in died
    for kind, moment in died.items():
        sent, answered = last[kind]
        assert moment - sent >= TTL - 0.1, f"{kind}: died {moment - sent:.1f} s after a beat"
        assert moment - answered <= TTL + SLACK, f"{kind}: lived for {moment - answered:.1f} s"


def test_streams_come_and_go(setting):
    """Those that stay are not disturbed, and at the end etcd has no stream more than before."""
    setting.renew()
    leases = [grant(setting) for _ in range(3)]
    before = setting.upstream.beating_streams
    stays = Beats(setting.connect())
    for number in range(10):
        gone = [Beats(client) for client in setting.connections(3)]
        for stream in gone:
            stream.send(*leases)
        stays.send(*leases)
        if number % 2:
            assert gone[0].answers(3) == [(lease, 1000) for lease in leases]
        for stream in gone:
            stream.stream.cancel()
        assert stays.answers(3) == [(lease, 1000) for lease in leases]
    setting.hang_up()
    until(lambda: setting.upstream.beating_streams <= before + 1)
