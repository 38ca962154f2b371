"""What belongs to no service: paths, sizes, compression, deadlines, metadata, broken messages."""

import grpc

from conformance.case import Group

group = Group("call")

PATHS = {
    "unknown service": "/etcdserverpb.Nothing/Range", "unknown method": "/etcdserverpb.KV/Nothing",
    "known method of another service": "/etcdserverpb.Lease/Range", "path without method": "/etcdserverpb.KV",
    "path with an empty method": "/etcdserverpb.KV/", "path of slashes": "/a/b/c/d", "root": "/",
    "other spelling": "/etcdserverpb.kv/range", "future service": "/etcdserverpb.Cache/Get",
}

group.table({
    name: [("KV/Range", {"key": b"k", "path": path}), ("KV/Range", {"key": b"k"})]
    for name, path in PATHS.items()})

group.table({
    "compressed": [
        ("KV/Put", {"key": b"k", "value": b"v" * 1000, "compression": grpc.Compression.Gzip}),
        ("KV/Put", {"key": b"k", "compression": grpc.Compression.Deflate})],
    "metadata": [
        ("KV/Range", {"key": b"k", "metadata": pairs}) for pairs in [
            [("hasleader", "true")], [("hasleader", "false")], [("client-api-version", "3.5")],
            [("client-api-version", "3.5"), ("hasleader", "true")], [("x-own", "1"), ("x-own", "2")],
            [("x-bytes-bin", b"\xff\x00")], [("x-large", "v" * 4000)]]],
    "long deadline": [("KV/Range", {"key": b"k", "timeout": 100_000_000})],
    "truncated message": [("KV/Range", {"raw": b"\x0a\x05ab"}), ("KV/Range", {"key": b"k"})],
    "wrong wire type": [("KV/Put", {"raw": b"\x08\x01"}), ("KV/Txn", {"raw": b"\x12\x02\x0a\x55"})],
    "endless number": [("KV/Range", {"raw": b"\x18" + b"\xff" * 11})],
    "empty message": [
        ("KV/Range", {"raw": b""}), ("KV/Txn", {"raw": b""}),
        ("Lease/LeaseGrant", {"raw": b"", "hidden": ["ID"]})],
})
group.table({
    # Fields that no release knows: etcd passes over them.
    "unknown fields": [
        ("KV/Put", {"raw": b"\x0a\x01k\x12\x01v\xf2\x3f\x03new\xf8\x3f\x05"}), ("KV/Range", {"key": b"k"})],
    "key in two halves of which the last counts": [
        ("KV/Put", {"raw": b"\x0a\x01a\x0a\x01k\x12\x01v"}),
        ("KV/Range", {"key": b"\0", "range_end": b"\0"})],
}, namespace=False)
group.table({
    "method of a later release": [("KV/RangeStream", {"key": b"k"})],
    "too large for etcd": [
        ("KV/Put", {"key": b"k", "value": b"v" * size}) for size in [1_572_000, 1_600_000, 2_000_000]],
    "too large for gRPC": [
        ("KV/Put", {"key": b"k", "value": b"v" * size}) for size in [2_097_152, 4_200_000, 9_000_000]],
})


@group.case(hidden=["revision"])
def cancelled_call(run):
    """The next call on the same connection has its answer."""
    run.quiet("Lease/LeaseGrant", ID=0x1001, TTL=1000)
    run.call("Lock/Lock", name=b"mutex", lease=0x1001)
    run.quiet("Lease/LeaseGrant", ID=0x1002, TTL=1000)
    waiting = run.later("Lock/Lock", name=b"mutex", lease=0x1002)
    waiting.cancel()
    run.call("KV/Range", key=b"k")


@group.case()
def many_calls_at_once(run):
    """A hundred on one connection, each with its own answer."""
    pending = [run.later("KV/Range", key=b"k%d" % number) for number in range(100)]
    for call in pending:
        call.record()
