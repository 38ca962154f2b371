"""Watches that a proxy serves together: seen by the clients they are watches of their own, seen by etcd they are one."""

import pytest

from support.fronts import not_alone
from support.upstream import IS_OURS, Front
from support.waiting import until
from support.watches import NODELETE, NOPUT, Log, StuckWatch, Watches, end_of

ours = pytest.mark.skipif(not IS_OURS, reason="what only this proxy has")


def below(prefix, **fields):
    return {"key": prefix, "range_end": end_of(prefix), **fields}


def sees(streams, log):
    for stream in streams:
        stream.sees(log)


# Upstream


@not_alone
def test_hundreds_of_watchers_are_one(setting, key):
    """300 on one key over 30 connections."""
    setting.renew()
    log = Log(setting.direct, key)
    streams = [Watches(client, *[{"key": log.key(0)}] * 10) for client in setting.connections(30)]
    for stream in streams:
        stream.created()
    before = setting.upstream.watchers
    for _ in range(20):
        log.put()
    sees(streams, log)
    # Traffic lets etcd's own proxy merge what it can.
    assert (setting.upstream.watchers, setting.upstream.streams) == (1, 1), f"{before} before the first event"
    # All but one go, and the last.
    for stream in streams[1:]:
        stream.close()
    log.put()
    streams[0].sees(log)
    assert setting.upstream.watchers == 1
    streams[0].close()
    setting.upstream.until_idle()


@not_alone
def test_two_tiers(setting, key):
    """A proxy in front of the proxy."""
    setting.renew()
    log = Log(setting.direct, key)
    log.some()
    second = Front(setting.address)
    try:
        streams = [Watches(setting.connect(second.address), below(key), below(key, start_revision=log.revision))
                   for _ in range(5)]
        streams += [Watches(setting.connect(), below(key)) for _ in range(5)]
        for stream in streams:
            stream.created()
        log.some(20)
        sees(streams, log)
        for stream in streams:
            stream.ask_for_progress()
            stream.until(lambda: stream.answers)
            stream.check_answers(log)
        streams[0].cancel(0)
        streams[0].until(lambda: streams[0].all[0].canceled)
        log.some()
        sees(streams, log)
        until(lambda: setting.upstream.watchers == 1)
    finally:
        setting.hang_up()
        second.close()


@ours
@pytest.mark.parametrize("wish", ["watch", "all"])
def test_a_watch_of_its_own(setting, key, wish):
    setting.renew()
    log = Log(setting.direct, key)
    shared = [Watches(client, below(key)).created() for client in setting.connections(3)]
    assert setting.upstream.watchers == 1
    own = Watches(setting.connect(), below(key), metadata=[("ringway-bypass", wish)]).created()
    assert setting.upstream.watchers == 2
    log.some()
    sees([*shared, own], log)
    own.close()
    until(lambda: setting.upstream.watchers == 1)
    log.some()
    sees(shared, log)


@not_alone
def test_reconnect_storm(setting, key):
    """Hundreds drop and are back at once where they were: nothing is lost, nothing comes twice, etcd hears nothing."""
    setting.renew()
    log = Log(setting.direct, key)
    streams = [Watches(client, *[below(key)] * 10).created() for client in setting.connections(30)]
    log.some()
    sees(streams, log)
    asked, most = setting.upstream.watch_requests, 0
    for number in range(3):
        # Some have heard of the newest events, others have not.
        log.some()
        sees(streams[::2], log)
        positions = [[watcher.next_revision for watcher in stream.all] for stream in streams]
        setting.hang_up()
        log.some(3)
        streams = [Watches(client, *[below(key, start_revision=start) for start in starts])
                   for client, starts in zip(setting.connections(30), positions)]
        log.some(3)
        most = max(most, setting.upstream.watchers)
        sees(streams, log)
        most = max(most, setting.upstream.watchers)
    assert most == 1
    assert setting.upstream.watch_requests == asked


# Creation


def test_created_once_with_a_full_header(setting, key):
    log = Log(setting.direct, key)
    log.some()
    here = setting.direct.ok("KV/Range", key=key).header
    for starts in [[0], [0, 0], [log.events[0].revision, 0], [0, here.revision + 100]]:
        client = setting.connect()
        seen = client.ok("KV/Range", key=key).header.revision
        stream = Watches(client, *[below(key, start_revision=start) for start in starts]).created()
        newest = setting.direct.ok("KV/Range", key=key).header.revision
        for watcher in stream.all:
            header = watcher.created.header
            assert (header.cluster_id, header.member_id, header.raft_term) == (
                here.cluster_id, here.member_id, here.raft_term)
            assert seen <= header.revision <= newest
        log.some()
        stream.sees(log)
        assert [told[:3] for told in stream.told if told[0]] == [
            (True, False, number) for number in range(len(starts))]


def test_now_is_after_what_was_read(setting, key):
    """A watch from now does not show what its client has already read, whoever has been watching before."""
    log = Log(setting.direct, key)
    early = Watches(setting.connect(), below(key)).created()
    for _ in range(10):
        log.put()
        client = setting.connect()
        client.get(log.key(0))
        late = Watches(client, below(key)).created()
        assert late.all[0].created.header.revision >= log.revision
        log.put()
        sees([late, early], log)


def test_starts_in_past_now_and_future(setting, key):
    log = Log(setting.direct, key)
    log.elsewhere()
    log.some(40)
    live = [Watches(client, below(key)).created() for client in setting.connections(3)]
    revisions = sorted({event.revision for event in log.events})
    starts = [0, revisions[0] - 1, revisions[0], revisions[7], revisions[20], log.revision, log.revision + 1, log.revision + 6,
              log.revision + 25, 0]
    streams = [Watches(setting.connect(), *[below(key, start_revision=start) for start in starts])]
    streams += [Watches(setting.connect(), below(key, start_revision=start)) for start in starts]
    single = Watches(setting.connect(), {"key": log.key(7), "start_revision": revisions[3]}, {"key": log.key(1)},
                     {"key": log.key(2), "range_end": b"\0", "start_revision": log.revision + 3})
    for stream in [*streams, single]:
        stream.created()
    log.some(40)
    sees([*live, *streams, single], log)
    log.put()
    sees([*live, *streams, single], log)


def test_filters_and_previous_values(setting, key):
    """Each has what it asked for, though they watch the same."""
    log = Log(setting.direct, key)
    log.some()
    kinds = [{}, {"filters": [NOPUT]}, {"filters": [NODELETE]}, {"filters": [NOPUT, NODELETE]}]
    streams = [Watches(setting.connect(), below(key), below(key, **kinds[1])).created()]
    log.some()
    # Now previous values are asked for as well, later by some who want them from before.
    first = log.events[0].revision
    for start in [0, first]:
        creates = [below(key, start_revision=start, prev_kv=wants, **kind)
                   for wants in [True, False] for kind in kinds]
        streams.append(Watches(setting.connect(), *creates).created())
        streams += [Watches(setting.connect(), create).created() for create in creates]
        log.some()
    sees(streams, log)
    assert any(event.previous for event in log.events)


# What one stream asks for in detail, compared with etcd itself


def cancelled_id(stream, log):
    stream.cancel(1)
    stream.until(lambda: stream.all[1].canceled)
    stream.cancel(1)
    stream.cancel(77)
    log.put()
    stream.sees(log)
    stream.create(**stream.all[0].fields)
    stream.create(**stream.all[0].fields, watch_id=1)


def progress_without_watches(stream, log):
    stream.cancel(0)
    stream.cancel(1)
    stream.until(lambda: stream.all[0].canceled and stream.all[1].canceled)
    stream.ask_for_progress()
    stream.create(**stream.all[0].fields)


def negative_start(stream, log):
    """Behind every compaction."""
    log.client.ok("KV/Compact", revision=log.revision)
    for start in [-1, -(1 << 63)]:
        old = stream.create(**{**stream.all[0].fields, "start_revision": start})
        stream.until(lambda: old.canceled)
    stream.create(**stream.all[0].fields)


def creating(*creates):
    def play(stream, log):
        for fields in creates:
            stream.create(**{**stream.all[0].fields, **fields})

    return play


PLAYS = {
    "own ids": creating({"watch_id": 7}, {}, {"watch_id": 3}, {}, {}, {"watch_id": 100}, {}),
    "an id twice": creating({"watch_id": 7}, {"watch_id": 7}, {"watch_id": 1}, {}, {"watch_id": 7}, {}),
    "negative id": creating({"watch_id": -1}, {"watch_id": -5}, {}),
    "empty range": creating({"range_end": b"a"}, {}, {"key": b"x", "range_end": b"x"}),
    "negative start": negative_start,
    "largest start": creating({"start_revision": (1 << 63) - 1}, {}),
    "no key": creating({"key": b"", "range_end": b""}, {"key": b"", "range_end": b"\0"}, {}),
    "cancelled id": cancelled_id,
    "progress without watches": progress_without_watches,
}


@pytest.mark.parametrize("name", PLAYS)
def test_as_etcd_itself(setting, key, name):
    """While others watch the same; they do not notice."""
    told = []
    for address in [setting.etcd.client, setting.address]:
        log = Log(setting.direct, key + address.encode())
        log.put()
        others = Watches(setting.connect(), below(log.prefix), below(log.prefix)).created()
        stream = Watches(setting.connect(address), below(log.prefix), below(log.prefix)).created()
        PLAYS[name](stream, log)
        stream.created()
        log.put()
        log.delete()
        sees([stream, others], log)
        base = log.events[0].revision - 1
        if told and any(each[2] == -1 and not each[0] for each in told[0]):
            stream.until(lambda: stream.answers)  # noqa: B023
        told.append([(*each[:4], each[4] and each[4] - base) for each in stream.told if not each[5]])
    # Asked for without a watch, progress comes on a stream of its own: perhaps behind a later answer.
    order = sorted if name == "progress without watches" else list
    assert order(told[1]) == order(told[0])


# Delivery


def test_a_transaction_arrives_whole(setting, key):
    log = Log(setting.direct, key)
    log.txn(puts=range(20))
    first = log.revision
    streams = [Watches(client, below(key), below(key, start_revision=first, prev_kv=True), {"key": log.key(3)})
               for client in setting.connections(4)]
    for stream in streams:
        stream.created()
    for number in range(10):
        log.txn(puts=range(15), deletions=range(15, 20))
        log.txn(puts=range(10, 20))
    sees(streams, log)
    late = Watches(setting.connect(), below(key, start_revision=first)).sees(log)
    assert sum(late.all[0].sizes) == 20 + 10 * 30


def test_fragments(setting, key):
    """A revision of three megabytes: in parts for who asks for parts, whole for the others."""
    log = Log(setting.direct, key)
    log.txn(puts=range(4), value=b"1" * 350_000)
    streams = [Watches(client, below(key, prev_kv=True), below(key, prev_kv=True, fragment=True), below(key))
               for client in setting.connections(2)]
    for stream in streams:
        stream.created()
    log.txn(puts=range(4), value=b"2" * 350_000)
    log.txn(puts=range(4), value=b"3" * 350_000)
    log.put(value=b"small")
    sees(streams, log)
    for stream in streams:
        whole, parts, plain = stream.all
        # A watch that is behind for a moment may get several revisions in one response, but never a part of one.
        for watcher in [whole, plain]:
            assert not any(watcher.fragments)
            assert watcher.sizes in ([4, 4, 1], [8, 1], [4, 5], [9])
        assert not parts.fragments[-1] and sum(parts.fragments) >= 2
        assert max(parts.bytes) <= 1_572_864 + 512 * 1024


def test_half_close(setting, key):
    """A client that has nothing more to ask still gets its events."""
    log = Log(setting.direct, key)
    whole = Watches(setting.connect(), below(key)).created()
    half = Watches(setting.connect(), below(key), below(key))
    half.half_close()
    half.created()
    for _ in range(3):
        log.some()
        sees([whole, half], log)


def test_compaction_cancels_whom_it_concerns(setting, key):
    log = Log(setting.direct, key)
    log.some(20)
    compacted = log.events[len(log.events) // 2].revision
    live = [Watches(client, below(key)).created() for client in setting.connections(2)]
    log.some()
    sees(live, log)
    setting.direct.ok("KV/Compact", revision=compacted, physical=True)
    starts = [1, compacted - 1, compacted, compacted + 1, log.revision, 0]
    streams = [Watches(setting.connect(), *[below(key, start_revision=start) for start in starts])]
    streams += [Watches(setting.connect(), below(key, start_revision=start)) for start in starts]
    for stream in streams:
        stream.created()
        for watcher in stream.all:
            if 0 < watcher.fields["start_revision"] < compacted:
                stream.until(lambda: watcher.canceled)
                assert watcher.canceled.compact_revision == compacted
                assert not watcher.events
    log.some()
    sees([*live, *streams], log)
    # What a live watch has seen may be compacted.
    setting.direct.ok("KV/Compact", revision=log.revision, physical=True)
    log.some()
    for stream in [*live, *streams]:
        stream.sees(log)
        assert all(not watcher.canceled or 0 < watcher.fields["start_revision"] < compacted
                   for watcher in stream.all)


def test_requested_progress(setting, key):
    """An answer never comes before an event up to its revision, and is no older than the question."""
    log = Log(setting.direct, key)
    log.some()
    streams = [Watches(client, below(key), {"key": log.key(1)}, below(key + b"none/")).created()
               for client in setting.connections(4)]
    streams.append(Watches(setting.connect(), {"key": b"nobody" + key}).created())
    for number in range(12):
        log.some(2)
        revision = log.elsewhere()
        for stream in streams:
            stream.ask_for_progress()
        if number == 6:
            streams.append(Watches(setting.connect(), below(key)).created())
            streams[-1].ask_for_progress()
        for stream in streams:
            stream.until(lambda: stream.answers)
            assert stream.answers[-1][0] >= revision
            # etcd 3.4.23 answers by another way than its events: a known fault of its own.
            if setting.etcd.release != "3.4":
                stream.check_answers(log)
            stream.answers.clear()
    sees(streams, log)


def test_periodic_progress(setting, key):
    """For those who want it, with their own ids, every 200 ms in these tests."""
    log = Log(setting.direct, key)
    log.some()
    streams = [Watches(client, below(key), below(key, progress_notify=True)).created()
               for client in setting.connections(3)]
    log.some()
    revision = log.elsewhere()
    for stream in streams:
        quiet, notified = stream.all
        stream.until(lambda: notified.progress and notified.progress[-1] >= revision)
        assert not quiet.progress
        assert notified.progress == sorted(notified.progress)
    log.some()
    sees(streams, log)


def test_one_that_does_not_read(setting, key):
    """It delays nobody, and gets everything in order once it reads."""
    log = Log(setting.direct, key, value=b"%d " + b"x" * 20_000)
    stuck = StuckWatch(setting.address, **below(key))
    others = [Watches(client, below(key), below(key)).created() for client in setting.connections(3)]
    for _ in range(150):
        log.put()
        sees(others, log)
    stuck.wake()
    stuck.socket.settimeout(10)
    stuck.read(lambda: len(stuck.watcher.events) >= 150)
    assert stuck.watcher.events == log.seen(stuck.watcher)
    log.put(value=b"last")
    stuck.read(lambda: len(stuck.watcher.events) > 150)
    sees(others, log)
    stuck.close()


@not_alone
def test_a_long_past_and_a_client_that_does_not_read(setting, key):
    """24 MB of the past: it waits for its client, costs others nothing, and is brought once."""
    log = Log(setting.direct, key, value=b"%d " + b"x" * 20_000)
    for _ in range(1200):
        log.put()
    start = log.events[0].revision
    stuck = StuckWatch(setting.address, **below(key, start_revision=start))
    other = Watches(setting.connect(), below(key, start_revision=start))
    other.sees(log, 60)
    log.put(value=b"last")
    other.sees(log)
    stuck.wake()
    stuck.socket.settimeout(30)
    stuck.read(lambda: len(stuck.watcher.events) >= 1201)
    assert stuck.watcher.events == log.seen(stuck.watcher)
    stuck.close()


def test_cancel_of_one_among_many(setting, key):
    """Nothing comes after it for that watch, everything for the others."""
    log = Log(setting.direct, key)
    streams = [Watches(client, *[below(key)] * 5).created() for client in setting.connections(4)]
    for number in range(4):
        log.some()
        for stream in streams:
            stream.cancel(number)
        log.some()
        for stream in streams:
            stream.until(lambda: stream.by_id[number].canceled)
            assert not stream.by_id[number].canceled.cancel_reason
            # Up to its end it has missed nothing.
            told = stream.by_id[number].events
            assert told == log.seen(stream.by_id[number])[:len(told)]
        sees(streams, log)
