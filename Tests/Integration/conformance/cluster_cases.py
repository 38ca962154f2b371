"""Cluster and Maintenance."""

import hashlib
import itertools

from conformance.case import Group

group = Group("cluster", hidden=["ID"])

NOWHERE = ["http://127.0.0.1:1"]
# A member's number comes from its addresses and the second of its birth, and no number is used twice.
ports = itertools.count(40_000)

group.table({
    "members": [("Cluster/MemberList", {})],
    "members without authentication": [("Cluster/MemberList", {"by": "nobody"})],
    "unknown members": [
        ("Cluster/MemberRemove", {"ID": 4711}), ("Cluster/MemberUpdate", {"ID": 4711, "peerURLs": NOWHERE}),
        ("Cluster/MemberPromote", {"ID": 4711})],
    "broken addresses": [
        ("Cluster/MemberAdd", {"peerURLs": ["not an address"]}), ("Cluster/MemberAdd", {"peerURLs": []}),
        ("Cluster/MemberUpdate", {"ID": 4711, "peerURLs": ["ftp://127.0.0.1:1"]})],
})
group.table({
    "members as the leader knows them": [("Cluster/MemberList", {"linearizable": True})],
}, since=(3, 5))


@group.case(hidden=["ID", "peerURLs"])
def learner_comes_and_goes(run):
    learner = {"peerURLs": [f"http://127.0.0.1:{next(ports)}"], "isLearner": True}
    added = run.call("Cluster/MemberAdd", **learner)
    run.call("Cluster/MemberAdd", **learner)
    run.call("Cluster/MemberList")
    run.call("Cluster/MemberUpdate", ID=added.member.ID if added else 1, peerURLs=["http://127.0.0.1:2"])
    run.call("Cluster/MemberPromote", ID=added.member.ID if added else 1)
    run.call("Cluster/MemberRemove", ID=added.member.ID if added else 1)
    run.call("Cluster/MemberRemove", ID=added.member.ID if added else 1)


@group.case()
def only_a_learner_is_promoted(run):
    member = run.quiet("Cluster/MemberList").members[0]
    run.call("Cluster/MemberPromote", ID=member.ID)
    run.call("Cluster/MemberAdd", peerURLs=list(member.peerURLs))


maintenance = Group("maintenance")

NOSPACE, CORRUPT = 1, 2
GET, ACTIVATE, DEACTIVATE = range(3)


def alarm(action, kind=0, **fields):
    return "Maintenance/Alarm", {"action": action, "alarm": kind, **fields}


maintenance.table({
    "status": [("Maintenance/Status", {})],
    "status without authentication": [("Maintenance/Status", {"by": "nobody"})],
    "defragment": [("Maintenance/Defragment", {})],
    "hash": [("Maintenance/Hash", {})],
    "alarms": [
        alarm(GET), alarm(ACTIVATE, NOSPACE), alarm(GET), ("KV/Put", {"key": b"k"}),
        ("KV/Range", {"key": b"k"}), alarm(DEACTIVATE, NOSPACE), alarm(GET), ("KV/Put", {"key": b"k"})],
    "alarm of another member": [
        alarm(ACTIVATE, NOSPACE, memberID=77), alarm(GET), alarm(DEACTIVATE, NOSPACE, memberID=77),
        alarm(GET)],
    "move the leader to nobody": [("Maintenance/MoveLeader", {"targetID": 4711})],
})
maintenance.table({
    "downgrade": [
        ("Maintenance/Downgrade", {"action": 0, "version": "3.4.0"}),
        ("Maintenance/Downgrade", {"action": 0, "version": "nonsense"}),
        ("Maintenance/Downgrade", {"action": 0, "version": "2.0.0"}),
        ("Maintenance/Downgrade", {"action": 2})],
}, since=(3, 5))


@maintenance.case(hidden=["compact_revision"])
def hash_of_the_keys(run):
    """Twice the same, another after a write."""
    run.quiet("KV/Put", key=b"k", value=b"v")
    hashes = [run.call("Maintenance/HashKV").hash for _ in range(2)]
    run.quiet("KV/Put", key=b"k", value=b"w")
    hashes.append(run.call("Maintenance/HashKV").hash)
    run.note("hashes", same=hashes[0] == hashes[1], other=hashes[1] != hashes[2])
    run.call("Maintenance/HashKV", revision=2**40)


@maintenance.case()
def leader_stays_where_it_is(run):
    member = run.quiet("Cluster/MemberList").members[0]
    run.call("Maintenance/MoveLeader", targetID=member.ID)


@maintenance.case(namespace=False)
def snapshot(run):
    """To its end: it counts down to nothing, and its last bytes are the hash of the rest."""
    for number in range(3):
        run.quiet("KV/Put", key=b"big/%d" % number, value=bytes([number]) * 1_000_000)
    stream = run.stream("Maintenance/Snapshot", {})
    parts = stream.rest()
    blob = b"".join(part.blob for part in parts)
    left = [part.remaining_bytes for part in parts]
    run.note(
        "snapshot", whole=hashlib.sha256(blob[:-32]).digest() == blob[-32:], large=len(blob) > 3_000_000,
        last=left[-1], descending=left == sorted(left, reverse=True),
        headers={str(part.header) for part in parts},
        largest=max(len(part.blob) for part in parts), **stream.ended)


@maintenance.case()
def snapshot_given_up(run):
    stream = run.stream("Maintenance/Snapshot", {})
    stream.next()
    stream.cancel()
    run.call("Maintenance/Alarm")
