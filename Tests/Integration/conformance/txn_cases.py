"""KV: transactions."""

from support.schema import Rev, build, METHODS

from conformance.case import Group
from conformance.kv_cases import get, put, scan

group = Group("txn")

EQUAL, GREATER, LESS, NOT_EQUAL = range(4)
VERSION, CREATE, MOD, VALUE, LEASE = range(5)


def txn(*compare, then=(), otherwise=()):
    return "KV/Txn", {"compare": list(compare), "success": list(then), "failure": list(otherwise)}


def do_put(key, value=b"w", **fields):
    return {"request_put": {"key": key, "value": value, **fields}}


def do_get(key, **fields):
    return {"request_range": {"key": key, **fields}}


def do_delete(key, **fields):
    return {"request_delete_range": {"key": key, **fields}}


def do_txn(*arguments, **named):
    return {"request_txn": txn(*arguments, **named)[1]}


def compare(key, target, result, **value):
    return {"key": key, "target": target, "result": result, **value}


def comparisons():
    """Every target with every result, against a key that is there and one that is not."""
    for key in [b"k", b"absent"]:
        for result in [EQUAL, GREATER, LESS, NOT_EQUAL]:
            for target, value in [(VERSION, {"version": 2}), (CREATE, {"create_revision": Rev(1)}),
                                  (MOD, {"mod_revision": Rev(2)}), (VALUE, {"value": b"v"}),
                                  (LEASE, {"lease": 0})]:
                yield txn(compare(key, target, result, **value), then=[do_get(b"k")], otherwise=[])


group.table({
    "all comparisons": [put(b"k"), put(b"k"), *comparisons()],
    "comparison without value": [put(b"k"), *[txn(compare(b"k", target, EQUAL)) for target in range(5)]],
    "comparison with the value of another target": [
        put(b"k"), txn(compare(b"k", VERSION, EQUAL, value=b"v")),
        txn(compare(b"k", VALUE, EQUAL, version=1))],
    "comparison of a range": [
        put(b"k1"), put(b"k2"), put(b"k3", b"other"),
        txn(compare(b"k", VALUE, EQUAL, value=b"v", range_end=b"k3")),
        txn(compare(b"k", VALUE, EQUAL, value=b"v", range_end=b"l")),
        txn(compare(b"k", VERSION, EQUAL, version=1, range_end=b"\0"))],
    "comparison without key": [txn(compare(b"", VERSION, EQUAL, version=0))],
    "several comparisons": [
        put(b"k"), txn(compare(b"k", VERSION, EQUAL, version=1), compare(b"k", VALUE, NOT_EQUAL, value=b"v"),
                       then=[do_put(b"yes")], otherwise=[do_put(b"no")]), scan(b"\0", b"\0")],
    "nothing at all": [txn()],
    "all operations": [
        put(b"k1"), put(b"k2"),
        txn(then=[do_put(b"k3", prev_kv=True), do_get(b"k", range_end=b"l"), do_delete(b"k1", prev_kv=True),
                  do_get(b"k1"), do_delete(b"k2", range_end=b"k3"), do_put(b"k4", prev_kv=True)]), scan()],
    "otherwise": [
        txn(compare(b"k", VERSION, GREATER, version=0), then=[do_put(b"yes")],
            otherwise=[do_put(b"no"), do_get(b"no")]), scan(b"\0", b"\0")],
    "one key twice": [
        txn(then=[do_put(b"k"), do_put(b"k")]),
        txn(then=[do_put(b"k"), do_delete(b"k", range_end=b"l")]),
        txn(then=[do_put(b"k")], otherwise=[do_put(b"k")])],
    "nested": [
        put(b"k"), txn(compare(b"k", VERSION, EQUAL, version=1), then=[
            do_txn(compare(b"k", VALUE, EQUAL, value=b"x"), then=[do_put(b"a")],
                   otherwise=[do_put(b"b"), do_txn(then=[do_get(b"k"), do_delete(b"k", prev_kv=True)])]),
            do_get(b"\0", range_end=b"\0")]), scan(b"\0", b"\0")],
    "one key twice in nested": [txn(then=[do_put(b"k"), do_txn(then=[do_put(b"k")])])],
    "range options": [
        put(b"k1", b"b"), put(b"k2", b"a"), txn(then=[
            do_get(b"k", range_end=b"l", sort_target=4, sort_order=1, limit=1),
            do_get(b"k", range_end=b"l", count_only=True), do_get(b"k", range_end=b"\0", keys_only=True),
            do_get(b"k", range_end=b"l", revision=Rev(1)), do_get(b"k", range_end=b"l", serializable=True)])],
    "range of a future revision": [txn(then=[do_get(b"k", revision=Rev(50))])],
    "range of a compacted revision": [
        put(b"k"), put(b"k"), ("KV/Compact", {"revision": Rev(2)}),
        txn(then=[do_get(b"k", revision=Rev(1))])],
    "operations without key": [
        txn(then=[do_put(b"")]), txn(then=[do_get(b"")]), txn(otherwise=[do_delete(b"")])],
    "put with unknown lease": [txn(then=[do_put(b"k", lease=4711)]), get(b"k")],
    "put that keeps the value": [
        put(b"k"), txn(then=[do_put(b"k", b"", ignore_value=True)]), get(b"k"),
        txn(then=[do_put(b"absent", b"", ignore_value=True)]),
        txn(then=[do_put(b"k", b"x", ignore_value=True)])],
    "too many operations": [
        txn(then=[do_get(b"k")] * 128), txn(then=[do_get(b"k")] * 129), txn(otherwise=[do_get(b"k")] * 129),
        txn(*[compare(b"k", VERSION, EQUAL, version=0)] * 129)],
    # What takes etcd's own proxy down.
    "empty operation": [txn(then=[{}]), txn(otherwise=[{}]), txn(then=[do_txn(then=[{}])]), get(b"k")],
})


def encoded(fields):
    return build(METHODS["KV/Txn"].request, fields).SerializeToString()


@group.case()
def deeply_nested(run):
    """Ten levels; how many are allowed is up to etcd."""
    operation = do_put(b"deep")
    for _ in range(10):
        operation = do_txn(then=[operation])
    run.call("KV/Txn", success=[operation])
    run.call("KV/Range", key=b"deep")


@group.case(namespace=False)
def unknown_operation(run):
    """Field 9 of an operation: of a later release, or of nobody. It has to arrive as it is."""
    unknown = b"\x12\x02\x4a\x00"  # success { 9: {} }
    run.call("KV/Txn", raw=encoded({"success": [do_put(b"k")]}) + unknown)
    run.call("KV/Range", key=b"k")


@group.case(namespace=False)
def last_operation_wins(run):
    """An operation that is said twice in one: protobuf's rule is that the last counts."""
    both = build(METHODS["KV/Txn"].request, {"success": [do_put(b"first")]}).success[0].SerializeToString()
    both += build(METHODS["KV/Txn"].request, {"success": [do_put(b"second")]}).success[0].SerializeToString()
    run.call("KV/Txn", raw=b"\x12" + bytes([len(both)]) + both)
    run.call("KV/Range", key=b"\0", range_end=b"\0")
