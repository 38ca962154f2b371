"""What happens to a watch whose group ends in the same moment. Etcd cannot be made to do that, so a fake is in its place."""

import pathlib
import signal

import grpc
import pytest

from support.fake_watches import FakeWatches, unread
from support.grpc_calls import Caller
from support.upstream import IS_OURS, Front
from support.waiting import until
from support.watches import Watches
from test_coalescing_faults import LEADER, NO_LEADER, end_of_stream

pytestmark = pytest.mark.skipif(not IS_OURS, reason="about the seams of this proxy")


@pytest.fixture(params=["io_uring", "epoll"])
def front(request):
    etcd = FakeWatches()
    made = Front(etcd.address, "--threads", "1", "--io-backend", request.param)
    made.etcd = etcd
    made.clients = []
    yield made
    for client in made.clients:
        client.close()
    made.close()
    etcd.close()


def connect(front):
    front.clients.append(Caller(front.address))
    return front.clients[-1]


class Stopped:
    """What comes while the proxy is stopped it sees in one turn of its loop."""

    def __init__(self, front):
        self.front = front
        self.ports = [int(front.address.rsplit(":", 1)[1]), front.etcd.port]

    def __enter__(self):
        self.front.proxy.process.send_signal(signal.SIGSTOP)
        until(lambda: all(state == "T" for state in self.states()))
        self.before = [unread(port) for port in self.ports]
        return self

    def states(self):
        for status in pathlib.Path(f"/proc/{self.front.proxy.process.pid}/task").glob("*/stat"):
            yield status.read_text().rpartition(")")[2].split()[0]

    def __exit__(self, *_):
        until(lambda: all(unread(port) > before for port, before in zip(self.ports, self.before)))
        self.front.proxy.process.send_signal(signal.SIGCONT)


def test_the_leader_goes_while_a_watch_is_made(front):
    """The stream ends with etcd's status, and no `created` comes that its client would take for another one's."""
    first = Watches(connect(front), {"key": b"k"}, metadata=LEADER).created()
    upstream = front.etcd.streams.get(timeout=5)
    upstream.event(b"k", 11)
    first.until(lambda: first.all[0].events)
    second = Watches(connect(front), {"key": b"other"}, metadata=LEADER).created()
    with Stopped(front):
        second.create(key=b"k", watch_id=7)
        second.create(key=b"x")
        upstream.end(grpc.StatusCode.UNAVAILABLE, NO_LEADER["text"])
    late = []
    while (response := second.stream.next(15)) is not None:
        late.append(response)
    assert second.stream.ended["code"] == NO_LEADER["code"] and second.stream.ended["text"] == NO_LEADER["text"]
    assert [each.watch_id for each in late] in ([], [7])
    assert all(each.header.revision > 0 for each in late)
    assert end_of_stream(first.stream) == NO_LEADER


def test_compaction_ends_a_group_while_a_watch_is_made(front):
    """A watch from now on has nothing to do with what was compacted: it begins with the group that comes next."""
    first = Watches(connect(front), {"key": b"k"}).created()
    upstream = front.etcd.streams.get(timeout=5)
    upstream.event(b"k", 11)
    first.until(lambda: first.all[0].events)
    second = Watches(connect(front), {"key": b"other"}).created()
    identifier = next(number for number, create in upstream.created.items() if create.key == b"k")
    with Stopped(front):
        second.create(key=b"k")
        upstream.say(watch_id=identifier, canceled=True, compact_revision=15)
        del upstream.created[identifier]
    second.created()
    made = second.all[1].created
    assert not made.canceled and made.header.revision >= 10
    first.until(lambda: first.all[0].canceled)
    assert first.all[0].canceled.compact_revision == 15
    until(lambda: any(create.key == b"k" for create in upstream.created.values()))
    upstream.event(b"k", 30)
    second.until(lambda: second.all[1].events)
    assert [event.revision for event in second.all[1].events] == [30]
