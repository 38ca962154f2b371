"""Prefixes that the proxy covers of its own accord: many ranges become one watch for each of its cores, and their own again when
the prefix brings too much that nobody watches."""

import pathlib

import pytest

from conformance.places import QUICK, RELEASES
from support.etcds import Etcd
from support.fronts import etcd_behind, numbers
from support.grpc_calls import Caller, request
from support.proxy_state import page
from support.upstream import IS_OURS, Front
from support.waiting import until
from support.watches import Log, Watches
from test_coalescing import below, sees
from test_covering import figure, one

CORES = 2
KEYS = 400
FROM = 50

pytestmark = [
    pytest.mark.skipif(not IS_OURS, reason="what only this proxy has"),
    pytest.mark.skipif(not pathlib.Path(RELEASES["3.5"][0]).exists(), reason="scripts/etcd-3.5.sh has not been run")]


@pytest.fixture(scope="module")
def place(memory):
    with etcd_behind("3.5", memory, "--threads", str(CORES), "--watch-cover-from", str(FROM)) as made:
        yield made


@pytest.fixture
def setting(place):
    yield place
    place.renew()


@pytest.fixture
def key():
    return b"u%d/" % next(numbers)


def streams_of(setting, log, count=KEYS):
    clients = setting.connections(10)
    return [Watches(client, *[one(log, number) for number in range(place, count, len(clients))]).created()
            for place, client in enumerate(clients)]


def write(log, keys, deletions=()):
    """Etcd takes 128 changes at a time."""
    keys = list(keys)
    for place in range(0, len(keys), 100):
        log.txn(puts=keys[place:place + 100], deletions=deletions if place == 0 else ())


def is_covered(setting):
    return setting.upstream.watchers <= CORES and figure(setting, "watch_covers") > 0


def test_many_keys_become_one_watch_a_core(setting, key):
    """While they are written, and before and after."""
    log = Log(setting.direct, key)
    streams = streams_of(setting, log)

    def write_until_covered():
        write(log, range(log.written % 7, KEYS, 7))
        return is_covered(setting)

    until(write_until_covered, 30)
    assert setting.upstream.streams == CORES
    write(log, range(0, KEYS, 3), deletions=[1])
    sees(streams, log)
    # Who comes now is a lane at once, from wherever it starts.
    late = Watches(setting.connect(), one(log, KEYS + 1), one(log, 3), one(log, 4, prev_kv=True),
                   one(log, 5, start_revision=log.revision), one(log, 6, start_revision=log.events[0].revision))
    sees([*streams, late.created()], log)
    for number in range(8):
        log.put(number)
    sees([*streams, late], log)
    until(lambda: is_covered(setting))


def test_who_watches_the_prefix_itself(setting, key):
    """Its watch serves the others, and it is no lane."""
    log = Log(setting.direct, key)
    whole = Watches(setting.connect(), below(key)).created()
    streams = streams_of(setting, log)
    until(lambda: is_covered(setting), 30)
    write(log, range(0, KEYS, 2))
    sees([whole, *streams], log)
    whole.close()
    write(log, range(0, KEYS, 3))
    sees(streams, log)


def test_who_may_not_read_the_prefix(memory):
    """etcd refuses the cover, nobody notices, and it is not asked for again and again."""
    etcd = Etcd("unasked", memory, program=RELEASES["3.5"][0], extra=QUICK)
    etcd.start()
    until(etcd.is_healthy, 40)
    try:
        direct = Caller(etcd.client)
        for name in ["root", "few"]:
            direct.ok("Auth/UserAdd", name=name, password="x")
            direct.ok("Auth/RoleAdd", name=name)
            direct.ok("Auth/UserGrantRole", user=name, role=name)
        # All that begins with a number, and so not the whole prefix.
        direct.ok("Auth/RoleGrantPermission", name="few",
                  perm={"permType": 2, "key": b"g/0", "range_end": b"g/:"})
        direct.ok("Auth/AuthEnable")
        root = [("token", direct.ok("Auth/Authenticate", name="root", password="x").token)]
        front = Front(etcd.client, "--threads", "1", "--watch-cover-from", "20")
        client = Caller(front.address)
        few = [("token", client.ok("Auth/Authenticate", name="few", password="x").token)]
        stream = Watches(client, *[{"key": b"g/%d" % number} for number in range(60)], metadata=few).created()
        asked = "many watches share a prefix; etcd is asked for one watch that serves them all"
        until(lambda: front.proxy.find(asked))
        for number in range(60):
            answer, ended = direct.unary("KV/Put", request("KV/Put", key=b"g/%d" % number, value=b"v"), metadata=root)
            assert answer, ended
        stream.until(lambda: all(watcher.events for watcher in stream.all))
        until(lambda: "ringway_proxy_watch_covers 0" in page(front.proxy, "/proxy/metrics"))
        assert not any(watcher.canceled for watcher in stream.all)
        assert len(front.proxy.find(asked)) == 1
        client.close()
        front.close()
    finally:
        direct.close()
        etcd.end()


def test_too_much_that_nobody_watches(setting, key):
    """The cover falls apart, and nobody notices."""
    log = Log(setting.direct, key)
    streams = streams_of(setting, log)
    until(lambda: is_covered(setting), 30)
    noise = Log(setting.direct, key + b"noise")

    def flood():
        for _ in range(30):
            noise.txn(puts=range(100))
        write(log, range(0, KEYS, 20))
        return setting.upstream.watchers >= KEYS

    until(flood, 60)
    write(log, range(KEYS))
    sees(streams, log)
    assert figure(setting, "watch_covers") == 0


def test_few_keys_are_left_alone(setting, key):
    log = Log(setting.direct, key)
    count = FROM - 1
    streams = streams_of(setting, log, count)
    write(log, range(count))
    sees(streams, log)
    until(lambda: figure(setting, "watch_groups") == count)
    assert setting.upstream.watchers == count and figure(setting, "watch_covers") == 0
