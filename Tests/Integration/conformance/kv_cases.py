"""KV: Range with its options, Put, DeleteRange, Compact."""

from support.schema import Rev

from conformance.case import Group

group = Group("kv")


def put(key, value=b"v", **fields):
    return "KV/Put", {"key": key, "value": value, **fields}


def get(key, **fields):
    return "KV/Range", {"key": key, **fields}


def scan(key=b"k", range_end=b"l", **fields):
    return "KV/Range", {"key": key, "range_end": range_end, **fields}


def delete(key, **fields):
    return "KV/DeleteRange", {"key": key, **fields}


FOUR = [put(b"k1", b"d"), put(b"k2", b"c"), put(b"k3", b"b"), put(b"k4", b"a"), put(b"k2", b"cc")]

group.table({
    "put and get": [put(b"k"), get(b"k")],
    "get of what is not there": [get(b"k")],
    "empty value": [put(b"k", b""), get(b"k")],
    "binary key and value": [put(b"\x00\xff%\n", bytes(range(256))), get(b"\x00\xff%\n")],
    "long key": [put(b"k" * 20_000), get(b"k" * 20_000, keys_only=True)],
    "large value": [put(b"k", b"v" * 1_000_000), get(b"k")],
    "empty key": [put(b""), get(b""), delete(b""), get(b"", range_end=b"\0"), delete(b"", range_end=b"\0")],
    "put with previous": [put(b"k", b"1", prev_kv=True), put(b"k", b"2", prev_kv=True)],
    "put that keeps the value": [put(b"k", b"1"), put(b"k", b"", ignore_value=True), get(b"k")],
    "put that keeps the value, with a value": [put(b"k", b"1"), put(b"k", b"2", ignore_value=True)],
    "put that keeps the value of nothing": [put(b"k", b"", ignore_value=True)],
    "put that keeps the lease of nothing": [put(b"k", ignore_lease=True)],
    "put that keeps the lease, with a lease": [put(b"k"), put(b"k", lease=5, ignore_lease=True)],
    "put with unknown lease": [put(b"k", lease=4711)],
    "delete": [put(b"k"), delete(b"k"), delete(b"k"), get(b"k")],
    "delete with previous": [*FOUR, delete(b"k1", prev_kv=True), delete(b"k", range_end=b"l", prev_kv=True)],
    "delete from a key on": [*FOUR, delete(b"k3", range_end=b"\0"), scan()],
    "delete of an inverted range": [*FOUR, delete(b"k3", range_end=b"k1"), scan()],
})

group.table({
    "range": [*FOUR, scan()],
    "range of one": [*FOUR, scan(b"k2", b"k2\0")],
    "from a key on": [*FOUR, scan(b"k3", b"\0")],
    "the whole store": [*FOUR, scan(b"\0", b"\0")],
    "inverted range": [*FOUR, scan(b"k3", b"k1")],
    "empty range": [*FOUR, scan(b"k3", b"k3")],
    "limit": [*FOUR, scan(limit=2), scan(limit=4), scan(limit=5), scan(limit=-1)],
    "keys only": [*FOUR, scan(keys_only=True)],
    "count only": [*FOUR, scan(count_only=True), scan(count_only=True, limit=2)],
    "serializable": [*FOUR, scan(serializable=True)],
    "sorted": [
        *FOUR, *[scan(sort_target=target, sort_order=order) for target in range(5) for order in range(3)]],
    "sorted and limited": [*FOUR, scan(sort_target=4, sort_order=1, limit=2), scan(sort_order=2, limit=1)],
    "unknown sort order": [*FOUR, scan(sort_order=7)],
    "revision bounds": [
        *FOUR, scan(min_mod_revision=Rev(3)), scan(max_mod_revision=Rev(3)), scan(min_create_revision=Rev(3)),
        scan(max_create_revision=Rev(3)), scan(min_mod_revision=Rev(2), max_mod_revision=Rev(3), limit=1)],
    "older revision": [*FOUR, scan(revision=Rev(2)), scan(revision=Rev(5)), get(b"k2", revision=Rev(4))],
    "future revision": [*FOUR, scan(revision=Rev(100))],
    "negative revision": [*FOUR, scan(revision=-1)],
    "zero bytes and high bytes": [
        put(b"\xff"), put(b"\xff\xff"), put(b"\0"), put(b"\xfe"), scan(b"\xff", b"\0"),
        scan(b"\xfe", b"\xff"),
        scan(b"\0", b"\xff"), delete(b"\xff", range_end=b"\0"), scan(b"\0", b"\0")],
    "compact": [
        *FOUR, ("KV/Compact", {"revision": Rev(4)}), scan(revision=Rev(3)), scan(revision=Rev(4)), scan(),
        ("KV/Compact", {"revision": Rev(2)}), ("KV/Compact", {"revision": Rev(100)})],
    "compact physically": [*FOUR, ("KV/Compact", {"revision": Rev(5), "physical": True}), scan()],
    "compact twice": [*FOUR, *[("KV/Compact", {"revision": Rev(5)})] * 2],
})


@group.case()
def more_than_one_frame(run):
    """Answers far larger than a flow-control window."""
    for number in range(6):
        run.quiet("KV/Put", key=b"big/%d" % number, value=bytes([number]) * 1_000_000)
    run.call("KV/Range", key=b"big/", range_end=b"big0")


@group.case()
def many_keys(run):
    for number in range(0, 500, 100):
        run.quiet("KV/Txn", success=[{"request_put": {"key": b"many/%04d" % (number + each), "value": b"v"}}
                                     for each in range(100)])
    run.call("KV/Range", key=b"many/", range_end=b"many0")
    run.call("KV/Range", key=b"many/", range_end=b"many0", limit=7, sort_order=2)
    run.call("KV/DeleteRange", key=b"many/0100", range_end=b"many/0400", prev_kv=True)
