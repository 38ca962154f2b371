"""Watch: creating, filters, history, ids, cancelling, the ends of a stream. Progress is in its own file."""

from support.schema import Rev

from conformance.case import Group

group = Group("watch")

NOPUT, NODELETE = 0, 1
KEY = {"key": b"k"}
PREFIX = {"key": b"k", "range_end": b"l"}


def put(run, key=b"k", value=b"v", **fields):
    run.quiet("KV/Put", key=key, value=value, **fields)


def delete(run, key=b"k", **fields):
    run.quiet("KV/DeleteRange", key=key, **fields)


def write(run):
    """Five revisions with puts and deletions inside and outside of the prefix."""
    put(run, b"k1", b"1")
    put(run, b"x", b"outside")
    put(run, b"k1", b"2")
    put(run, b"k2", b"1")
    delete(run, b"k", range_end=b"l")


def watch_from_now(**options):
    """A case: created, then sees what `write` writes; `events` says how many of it."""
    events = options.pop("events")

    def play(run):
        watch = run.watch({**PREFIX, **options}).created()
        write(run)
        put(run, b"k9")
        watch.events(events + 1 - (NOPUT in options.get("filters", [])))

    return play


def watch_history(start, events, **options):
    def play(run):
        write(run)
        watch = run.watch({**PREFIX, "start_revision": start, **options}).created()
        watch.events(events)
        put(run, b"k9")
        delete(run, b"k9")
        watch.events(events + (1 if options.get("filters") else 2))

    return play


group.functions({
    "from now": watch_from_now(events=5),
    "from now with previous values": watch_from_now(events=5, prev_kv=True),
    "without puts": watch_from_now(events=2, filters=[NOPUT]),
    "without deletions": watch_from_now(events=3, filters=[NODELETE]),
    "without deletions, with previous values": watch_from_now(events=3, filters=[NODELETE], prev_kv=True),
    "from now with progress": watch_from_now(events=5, progress_notify=True),
    "history": watch_history(Rev(1), 5),
    "history with previous values": watch_history(Rev(1), 5, prev_kv=True),
    "part of history": watch_history(Rev(3), 4),
    "last revision of history": watch_history(Rev(5), 2),
    "history without puts": watch_history(Rev(1), 2, filters=[NOPUT]),
    "history without deletions": watch_history(Rev(1), 3, filters=[NODELETE]),
    "history of the next revision": watch_history(Rev(6), 0),
})


@group.case()
def single_key(run):
    watch = run.watch(KEY).created()
    put(run, b"k0")
    put(run, b"k")
    put(run, b"j")
    delete(run, b"k")
    watch.events(2)


@group.case()
def ranges(run):
    """From a key on, everything, a range of one key: each as a watch of one stream."""
    watch = run.watch(
        {"key": b"k2", "range_end": b"\0"}, {"key": b"\0", "range_end": b"\0"},
        {"key": b"", "range_end": b"\0"},
        {"key": b"k1", "range_end": b"k1\0"}, {"key": b"k1", "range_end": b"k3"}).created(5)
    for key in [b"k1", b"k2", b"k3", b"\0", b"\xff\xff"]:
        put(run, key)
    watch.events(3 + 5 + 5 + 1 + 2)


@group.case()
def empty_key(run):
    """etcd reads it as the zero byte."""
    watch = run.watch({"key": b""}).created()
    put(run, b"k")
    put(run, b"\0")
    watch.events(1)


@group.case()
def empty_ranges(run):
    for range_end in [b"k", b"a"]:
        run.watch({"key": b"k", "range_end": range_end}).canceled()


@group.case()
def empty_range_among_others(run):
    """The stream goes on, and the ids of the others are not disturbed."""
    watch = run.watch(KEY, {"key": b"k", "range_end": b"a"}, KEY).created(3)
    put(run)
    watch.events(2)


@group.case()
def negative_start(run):
    """Behind every compaction."""
    put(run)
    run.quiet("KV/Compact", revision=Rev(1))
    watch = run.watch({"key": b"k", "start_revision": -1}).canceled()
    watch.create(**KEY)
    watch.created(2)
    put(run)
    watch.events(1)


@group.case()
def compacted(run):
    write(run)
    run.quiet("KV/Compact", revision=Rev(4))
    run.watch({**PREFIX, "start_revision": Rev(1)}).canceled()
    run.watch({**PREFIX, "start_revision": Rev(3)}).canceled()
    run.watch({**PREFIX, "start_revision": Rev(4)}).created().events(3)


@group.case()
def compacted_among_others(run):
    """The other watch of the stream lives on."""
    watch = run.watch(PREFIX).created()
    write(run)
    watch.events(5)
    run.quiet("KV/Compact", revision=Rev(4))
    watch.create(**PREFIX, start_revision=Rev(2))
    watch.canceled()
    put(run)
    watch.events(6)


@group.case()
def compaction_behind_a_live_watch(run):
    """It has seen everything up to there and notices nothing."""
    watch = run.watch(PREFIX).created()
    write(run)
    watch.events(5)
    run.quiet("KV/Compact", revision=Rev(5), physical=True)
    put(run)
    watch.events(6)


@group.case()
def previous_value_is_compacted(run):
    put(run, value=b"1")
    put(run, value=b"2")
    run.quiet("KV/Compact", revision=Rev(2), physical=True)
    run.watch({**KEY, "start_revision": Rev(2), "prev_kv": True}).events(1)


@group.case()
def future(run):
    """A watch waits for its revision, and what comes before is not for it."""
    watch = run.watch({**PREFIX, "start_revision": Rev(4)}, PREFIX).created(2)
    write(run)
    watch.events(3 + 5)


@group.case()
def far_future_beside_a_live_watch(run):
    watch = run.watch({**PREFIX, "start_revision": Rev(1000)}, PREFIX).created(2)
    write(run)
    watch.events(5)


@group.case()
def all_of_a_transaction_at_once(run):
    watch = run.watch(PREFIX, {**PREFIX, "prev_kv": True}).created(2)
    operations = [{"request_put": {"key": b"k%d" % number, "value": b"v"}} for number in range(50)]
    run.quiet("KV/Txn", success=[*operations, {"request_delete_range": {"key": b"x", "range_end": b"y"}}])
    watch.events(100)


@group.case(slow=True)
def long_history(run):
    """More than a thousand revisions: etcd sends them in several turns, whose header names the last."""
    for _ in range(12):
        run.quiet("KV/Txn", success=[
            {"request_put": {"key": b"k%d" % each, "value": b"v"}} for each in range(100)])
    for number in range(1100):
        put(run, b"k", b"%d" % number)
    watch = run.watch({**PREFIX, "start_revision": Rev(1)}, {**KEY, "start_revision": Rev(500)}).created(2)
    put(run, b"k", b"last")
    watch.events(1200 + 1100 + 1 + 613 + 1)


@group.case()
def lease_takes_keys(run):
    """A deletion by the end of a lease is an event like any other."""
    run.quiet("Lease/LeaseGrant", ID=0x1001, TTL=1000)
    put(run, lease=0x1001)
    watch = run.watch({**KEY, "prev_kv": True}).created()
    run.quiet("Lease/LeaseRevoke", ID=0x1001)
    watch.events(1)


@group.case()
def two_streams(run):
    """The same range, both see everything."""
    streams = [run.watch(PREFIX).created() for _ in range(2)]
    write(run)
    late = run.watch({**PREFIX, "start_revision": Rev(1)}).created()
    for watch in [*streams, late]:
        watch.events(5)


@group.case()
def hundred_watches_of_one_stream(run):
    watch = run.watch(*[{"key": b"k%d" % (number % 10)} for number in range(100)]).created(100)
    for number in range(10):
        put(run, b"k%d" % number)
    watch.events(100)


# Ids

@group.case()
def own_ids(run):
    watch = run.watch({**KEY, "watch_id": 7}, KEY, {**KEY, "watch_id": 1}, KEY, KEY).created(5)
    put(run)
    watch.events(5)


@group.case()
def own_id_twice(run):
    watch = run.watch({**KEY, "watch_id": 7}, {**KEY, "watch_id": 7}).created(2)
    put(run)
    watch.events(1)
    watch.create(**KEY)
    watch.created(3)


@group.case()
def own_negative_id(run):
    watch = run.watch({**KEY, "watch_id": -5}).created()
    put(run)
    watch.events(1)


@group.case()
def id_that_etcd_gave_already(run):
    watch = run.watch(KEY, {**KEY, "watch_id": 0}, {**KEY, "watch_id": 1}).created(3)
    put(run)
    watch.events(2)


@group.case()
def id_after_cancelling(run):
    """Numbers go on; they are not given out again."""
    watch = run.watch(KEY, KEY).created(2)
    watch.cancel(0)
    watch.canceled()
    watch.create(**KEY)
    watch.created(3)
    put(run)
    watch.events(2)


@group.case()
def own_id_after_cancelling(run):
    watch = run.watch({**KEY, "watch_id": 7}).created()
    watch.cancel(7)
    watch.canceled()
    watch.create(**KEY, watch_id=7)
    watch.created(2)
    put(run)
    watch.events(1)


# Cancelling and ends

@group.case()
def cancel(run):
    watch = run.watch(KEY).created()
    put(run)
    watch.events(1)
    watch.cancel(0)
    watch.canceled()
    put(run)
    watch.create(**KEY)
    watch.created(2)
    put(run)
    watch.events(2)


@group.case()
def cancel_of_an_unknown_watch(run):
    """No answer: the next thing on the stream is what is asked for after it."""
    watch = run.watch(KEY).created()
    watch.cancel(99)
    watch.create(**PREFIX)
    watch.created(2)


@group.case()
def cancel_twice(run):
    watch = run.watch(KEY).created()
    watch.cancel(0)
    watch.cancel(0)
    watch.create(**KEY)
    watch.created(2)


@group.case()
def half_close(run):
    """A client that has nothing more to ask still gets its events."""
    watch = run.watch(KEY).created()
    watch.half_close()
    put(run)
    put(run)
    watch.events(2)


@group.case()
def half_close_at_once(run):
    watch = run.watch(KEY, KEY)
    watch.half_close()
    watch.created(2)
    put(run)
    watch.events(2)


@group.case()
def empty_request(run):
    """A request that says nothing is passed over."""
    watch = run.watch(KEY).created()
    watch.stream.send(b"")
    watch.create(**KEY)
    watch.created(2)


@group.case()
def broken_request(run):
    watch = run.watch(KEY).created()
    watch.stream.send(b"\x0a\xff")
    watch.finish()


@group.case(slow=True)
def deadline(run):
    watch = run.watch(KEY, timeout=0.5).created()
    watch.finish()


@group.case()
def leader_required(run):
    watch = run.watch(KEY, metadata=[("hasleader", "true")]).created()
    put(run)
    watch.events(1)


# Fragments

@group.case()
def fragments(run):
    """One revision of almost three megabytes: in parts for who asks for parts."""
    for value in [b"1", b"2"]:
        if value == b"2":
            whole = run.watch({**PREFIX, "prev_kv": True}).created()
            parts = run.watch({**PREFIX, "prev_kv": True, "fragment": True}).created()
        run.quiet("KV/Txn", success=[{"request_put": {"key": b"k%d" % each, "value": value * 350_000}}
                                     for each in range(4)])
    whole.events(4)
    parts.events(4)
    limit = 1_572_864 + 512 * 1024
    run.note("whole", in_one=len(whole.sizes) == 2, fragments=whole.fragments)
    run.note("parts", fragments=parts.fragments, sizes=[size <= limit for size in parts.sizes])


@group.case()
def fragments_of_what_is_small(run):
    watch = run.watch({**PREFIX, "fragment": True}).created()
    write(run)
    watch.events(5)
    run.note("parts", fragments=watch.fragments)
