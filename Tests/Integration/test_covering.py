"""Watches of many different keys under one prefix: seen by the clients they are watches of their own, seen by etcd they are
one. RINGWAY_COVER says how many keys the largest test has."""

import os
import pathlib

import pytest

from conformance.places import QUICK, RELEASES
from support.etcds import Etcd
from support.fronts import Setting, etcd_behind, numbers, releases
from support.proxy_state import page, sample
from support.relay import Relay
from support.upstream import IS_OURS
from support.waiting import until
from support.watches import NODELETE, NOPUT, Log, Watches
from test_coalescing import below, sees
from test_coalescing_principals import AuthSetting

KEYS = int(os.environ.get("RINGWAY_COVER", "3000"))
COVER = b"c/"

pytestmark = pytest.mark.skipif(not IS_OURS, reason="what only this proxy has")


@pytest.fixture(scope="module", params=releases())
def place(request, memory):
    with etcd_behind(request.param, memory, "--watch-cover", COVER.decode()) as made:
        yield made


@pytest.fixture
def covered(place):
    yield place
    place.renew()


@pytest.fixture
def key():
    """A part of the covered prefix that no other test uses."""
    return COVER + b"%d/" % next(numbers)


def figure(setting, name):
    return int(sample(page(setting.front.proxy, "/proxy/metrics"), f"ringway_proxy_{name}"))


def one(log, number, **fields):
    return {"key": log.key(number), **fields}


# One watch


def test_many_keys_are_one_watch(covered, key):
    log = Log(covered.direct, key)
    clients = covered.connections(30)
    streams = [Watches(client, *[one(log, number) for number in range(place, KEYS, len(clients))])
               for place, client in enumerate(clients)]
    for stream in streams:
        stream.until(lambda: not stream.waiting, 60)
    assert (covered.upstream.watchers, covered.upstream.streams) == (1, 1)
    for number in range(0, KEYS, max(1, KEYS // 100)):
        log.put(number)
    log.txn(puts=[0, 1, KEYS - 1, KEYS], deletions=[KEYS // 100])
    for stream in streams:
        told = {event for watcher in stream.all for event in watcher.events}
        mine = {watcher.fields["key"] for watcher in stream.all}
        expected = [event._replace(previous=None) for event in log.events if event.key in mine]
        stream.until(lambda: sum(len(watcher.events) for watcher in stream.all) >= len(expected))
        assert told <= set(expected)
        for watcher in stream.all:
            assert watcher.events == [event for event in expected if event.key == watcher.fields["key"]]
    until(lambda: figure(covered, "watch_lanes") == KEYS)
    assert (figure(covered, "watch_covers"), figure(covered, "watch_groups")) == (1, 1)
    for stream in streams[1:]:
        stream.close()
    log.put(0)
    streams[0].until(lambda: streams[0].all[0].events[-1].revision == log.revision)
    assert covered.upstream.watchers == 1
    streams[0].close()
    covered.upstream.until_idle()
    until(lambda: figure(covered, "watch_lanes") + figure(covered, "watch_covers") == 0)


def test_ranges_of_all_kinds(covered, key):
    """Those within the prefix share its watch, whoever was first; those that reach out of it do not."""
    log = Log(covered.direct, key)
    middle, far = key + b"4", COVER + b"\xff"
    within = [one(log, 1), one(log, 1, prev_kv=True), one(log, 1, range_end=log.key(1) + b"\0"), below(key),
              one(log, 1, range_end=log.key(5)), one(log, 3, range_end=log.key(8)), below(COVER),
              {"key": key, "range_end": middle}, {"key": middle, "range_end": far}, one(log, 7, fragment=True),
              below(key, filters=[NOPUT]), one(log, 0, filters=[NODELETE]), below(key, filters=[NOPUT, NODELETE])]
    outside = [{"key": key, "range_end": b"d"}, {"key": b"c", "range_end": key + b"5"}]
    first = Watches(covered.connect(), *within[:4]).created()
    log.some()
    streams = [first, Watches(covered.connect(), *within, *outside), Watches(covered.connect(), *outside, *within)]
    sees(streams, log)
    log.some(20)
    sees(streams, log)
    assert covered.upstream.watchers == 1 + len(outside)
    # Who comes while the others are there, and who goes.
    streams += [Watches(covered.connect(), each) for each in within]
    log.some()
    sees(streams, log)
    for stream in streams[3::2]:
        stream.close()
    first.cancel(1)
    first.until(lambda: first.all[1].canceled)
    log.some()
    sees(streams[:3] + streams[4::2], log)
    assert covered.upstream.watchers == 1 + len(outside)


def test_the_prefix_itself_first(covered, key):
    """Its group becomes the cover of who comes later, and stays it when its own watchers are gone."""
    log = Log(covered.direct, key)
    whole = Watches(covered.connect(), below(COVER)).created()
    log.some()
    lanes = Watches(covered.connect(), *[one(log, number) for number in range(9)]).created()
    log.some()
    sees([whole, lanes], log)
    whole.close()
    log.some()
    lanes.sees(log)
    again = Watches(covered.connect(), below(COVER)).created()
    log.some()
    sees([again, lanes], log)
    assert covered.upstream.watchers == 1


# Where watches begin


def test_a_start_that_the_cover_remembers(covered, key):
    """Costs etcd nothing, though nobody has watched the key."""
    log = Log(covered.direct, key)
    streams = [Watches(covered.connect(), one(log, 99))]
    sees(streams, log)
    log.some(30)
    sees(streams, log)
    asked = covered.upstream.watch_requests
    for event in log.events[::3]:
        streams.append(Watches(covered.connect(), {"key": event.key, "start_revision": event.revision},
                               below(event.key[:-1], start_revision=event.revision)))
        # A group begins where its first watcher does: that has to be the one with the earliest start.
        streams[-1].created()
    sees(streams, log)
    log.some()
    sees(streams, log)
    assert covered.upstream.watch_requests == asked


def test_starts_of_all_kinds(covered, key):
    """Before the cover began, in its history, now, and in the future."""
    log = Log(covered.direct, key)
    log.some(20)
    streams = [Watches(covered.connect(), one(log, 0))]
    sees(streams, log)
    log.some(20)
    starts = [event.revision for event in log.events[::4]] + [0, log.revision + 1, log.revision + 15]
    for number, start in enumerate(starts):
        streams.append(Watches(covered.connect(), one(log, number % 9, start_revision=start),
                               below(key, start_revision=start, prev_kv=number % 2 == 0)))
    sees(streams, log)
    log.some(30)
    sees(streams, log)


def test_compacted(covered, key):
    log = Log(covered.direct, key)
    log.some(20)
    compacted = log.events[len(log.events) // 2].revision
    lanes = [Watches(covered.connect(), one(log, 1), below(key)).created()]
    log.some()
    sees(lanes, log)
    covered.direct.ok("KV/Compact", revision=compacted, physical=True)
    for start in [1, compacted - 1, compacted, compacted + 1, log.revision, 0]:
        stream = Watches(covered.connect(), one(log, 2, start_revision=start)).created()
        if 0 < start < compacted:
            stream.until(lambda: stream.all[0].canceled)
            assert stream.all[0].canceled.compact_revision == compacted
        lanes.append(stream)
    log.some()
    sees(lanes, log)


def test_what_brings_the_past_is_given_back(memory, key):
    """Though nothing happens to the keys, and etcd says for minutes nothing of how far it is."""
    release = "3.5"
    if not pathlib.Path(RELEASES[release][0]).exists():
        pytest.skip("scripts/etcd-3.5.sh has not been run")
    etcd = Etcd(f"etcd{next(numbers)}", memory, program=RELEASES[release][0], extra=QUICK[:-2])
    etcd.start()
    until(etcd.is_healthy, 40, "etcd", pause=0.05)
    setting = Setting(etcd, "--watch-cover", COVER.decode())
    try:
        log = Log(setting.direct, key)
        log.some(50)
        first = Watches(setting.connect(), one(log, 99)).created()
        start = log.events[0].revision
        streams = [Watches(client, *[one(log, number, start_revision=start) for number in range(20)])
                   for client in setting.connections(3)]
        sees([first, *streams], log)
        until(lambda: setting.upstream.watchers == 1)
        log.some()
        sees([first, *streams], log)
        assert setting.upstream.watchers == 1
    finally:
        setting.close()
        etcd.end()


# What was there before, and how far etcd is


def test_previous_values(covered, key):
    """The first watch that wants them makes the cover bring them; the others do not get them."""
    log = Log(covered.direct, key)
    log.some()
    streams = [Watches(covered.connect(), one(log, 1), below(key)).created()]
    log.some()
    sees(streams, log)
    for start in [0, log.revision + 1, log.events[-5].revision]:
        streams.append(Watches(covered.connect(), one(log, 1, prev_kv=True, start_revision=start), one(log, 2),
                               below(key, prev_kv=True, start_revision=start)).created())
        log.some()
        sees(streams, log)
    streams[1].close()
    log.some()
    sees([streams[0], *streams[2:]], log)


def test_progress(covered, key):
    """Asked for and periodic, of lanes that have events and of those that have none."""
    log = Log(covered.direct, key)
    streams = [Watches(client, one(log, 1, progress_notify=True), below(key), one(log, 99, progress_notify=True),
                       {"key": b"out" + key}).created() for client in covered.connections(3)]
    for _ in range(12):
        log.some(2)
        revision = log.elsewhere()
        for stream in streams:
            stream.ask_for_progress()
        for stream in streams:
            before = len(stream.answers)
            stream.until(lambda: len(stream.answers) > before)
            if covered.etcd.release != "3.4":
                assert stream.answers[-1][0] >= revision
    sees(streams, log)
    for stream in streams:
        if covered.etcd.release != "3.4":
            stream.check_answers(log)
        for watcher in [stream.all[0], stream.all[2]]:
            stream.until(lambda: watcher.progress and watcher.progress[-1] >= log.revision)
        assert not stream.all[1].progress


# Who may


@pytest.fixture
def guarded(auth_place):
    """A proxy that covers what alice and root may read, and where others may read parts."""
    made = AuthSetting(auth_place, "--watch-cover", "a/")
    yield made
    made.close()


def test_who_may_read_a_part_only(guarded):
    """etcd refuses the cover, and says to each watch by itself what it has to say. Others keep theirs."""
    log = guarded.log
    name, password = guarded.another(log.prefix)
    covered = [Watches(guarded.user("root"), one(log, number), below(log.prefix)).created() for number in range(3)]
    assert guarded.upstream.watchers == 1
    part = guarded.user(name, password=password)
    allowed = Watches(part, *[one(log, number) for number in range(9)], below(log.prefix)).created()
    refused = Watches(part, {"key": b"a/nobody"}, below(b"a/")).created()
    log.some()
    sees([*covered, allowed], log)
    assert not any(watcher.canceled for watcher in allowed.all)
    told = Watches(guarded.user(name, guarded.etcd.client, password), {"key": b"a/nobody"}).created()
    for watcher in refused.all:
        assert watcher.canceled.created and watcher.canceled.cancel_reason == told.all[0].canceled.cancel_reason
    assert guarded.upstream.watchers == 1 + len(allowed.all)
    later = Watches(guarded.user(name, password=password), one(log, 20), one(log, 3)).created()
    log.some()
    sees([*covered, allowed, later], log)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_right_that_is_taken_away(guarded, is_known):
    """Who watches keeps the watch, as with etcd; a key under a cover that stands is refused from then on, even if the
    proxy has not heard of it, and etcd has just let the user read something else."""
    log = guarded.log
    name, password = guarded.another(b"a/", b"mine/")
    user, root = guarded.user(name, password=password), guarded.user("root")
    live = [Watches(user, one(log, 1), one(log, 2)).created(), Watches(root, one(log, 3)).created()]
    log.some()
    sees(live, log)
    (root if is_known else guarded.root).ok("Auth/RoleRevokePermission", role=name, key=b"a/", range_end=b"a0")
    for number in [4, 5, 6]:
        allowed = Watches(user, {"key": b"mine/x"}, {"key": b"mine/%d" % number}).created()
        assert not any(watcher.canceled for watcher in allowed.all)
        stream = Watches(user, one(log, number)).created()
        assert stream.all[0].canceled and not stream.all[0].events
    log.some()
    sees(live, log)
    root.ok("Auth/RoleGrantPermission", name=name, perm={"permType": 0, "key": b"a/", "range_end": b"a0"})
    live.append(Watches(user, one(log, 7)).created())
    log.some()
    sees(live, log)
    assert not live[-1].all[0].canceled


# Outages


def test_connections_break(covered, peers, key):
    """In the end for so long that etcd has compacted what came meanwhile, which each watch is told."""
    relay = peers.keep(Relay(covered.etcd.client))
    broken = Setting(covered.etcd, "--watch-cover", COVER.decode(), endpoints=relay.address)
    try:
        log = Log(covered.direct, key)
        streams = [Watches(client, *[one(log, number) for number in range(9)], below(key, prev_kv=True)).created()
                   for client in broken.connections(5)]
        for number in range(6):
            log.some(4)
            [relay.cut, relay.end, relay.inject][number % 3]()
            log.some(4)
            streams.append(Watches(broken.connect(), one(log, number), below(key, start_revision=log.revision)))
            sees(streams, log)
        until(lambda: broken.upstream.watchers == 1)
        relay.refuse()
        relay.cut()
        log.some(20)
        # Older etcds forget a deletion in the compacted revision itself.
        compacted = log.put()
        log.some()
        covered.direct.ok("KV/Compact", revision=compacted, physical=True)
        relay.heal()
        for stream in streams:
            for watcher in stream.all:
                stream.until(lambda: watcher.canceled)
                assert watcher.canceled.compact_revision == compacted
        after = Watches(broken.connect(), one(log, 1), below(key, start_revision=compacted)).created()
        log.some()
        after.sees(log)
    finally:
        broken.close()


def test_etcd_is_started_again(covered, key):
    log = Log(covered.direct, key)
    streams = [Watches(client, *[one(log, number) for number in range(9)], below(key)).created()
               for client in covered.connections(5)]
    for _ in range(2):
        log.some()
        sees(streams, log)
        covered.etcd.kill()
        streams.append(Watches(covered.connect(), one(log, 3), one(log, 77), below(key, start_revision=log.revision)))
        covered.etcd.start()
        until(covered.etcd.is_healthy, 40, "etcd", pause=0.05)
        log.some()
        for stream in streams:
            stream.sees(log, 15)
    assert all(not watcher.canceled for stream in streams for watcher in stream.all)


# Namespaces


def test_in_a_namespace(covered, key):
    """The prefix is as clients know it, and so are the events; etcd sees one watch."""
    inside = Setting(covered.etcd, "--namespace", "space/", "--watch-cover", COVER.decode())
    try:
        outer, other = Log(covered.direct, b"space/" + key), Log(covered.direct, key)
        keys = [outer.key(number) for number in range(9)]
        ranges = [below(key), below(COVER), {"key": key + b"3", "range_end": key + b"6"},
                  {"key": key, "range_end": b"\0"}]
        stream = Watches(inside.connect(), *[{"key": each[6:]} for each in keys], *ranges).created()
        outer.some()
        other.some()
        outer.some()
        seen = Log(covered.direct, key)
        seen.events = [event._replace(key=event.key[6:]) for event in outer.events]
        stream.sees(seen)
        late = Watches(inside.connect(), {"key": keys[1][6:], "start_revision": seen.events[8].revision},
                       below(key, start_revision=seen.events[8].revision)).created()
        late.sees(seen)
        # All but the one without an end.
        assert inside.upstream.watchers == 2
    finally:
        inside.close()
