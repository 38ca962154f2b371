"""Lease: grants, their keys, heartbeats."""

from support.waiting import until

from conformance.case import Group
from conformance.kv_cases import get, put

group = Group("lease")

ONE, TWO, NONE = 0x1001, 0x1002, 0x4711


def grant(identifier=ONE, seconds=1000):
    return "Lease/LeaseGrant", {"ID": identifier, "TTL": seconds}


def revoke(identifier=ONE):
    return "Lease/LeaseRevoke", {"ID": identifier}


def left(identifier=ONE, keys=False):
    return "Lease/LeaseTimeToLive", {"ID": identifier, "keys": keys}


group.table({
    "grant": [grant(), left()],
    "grant twice": [grant(), grant()],
    "grant too long": [grant(seconds=9_000_000_001), grant(seconds=2**62)],
    "grant for no time": [grant(seconds=0), grant(TWO, seconds=-5)],
    "grant with a negative number": [grant(-7), left(-7), revoke(-7)],
    "all leases": [grant(), grant(TWO), ("Lease/LeaseLeases", {}), revoke(), ("Lease/LeaseLeases", {})],
    "revoke": [grant(), put(b"k", lease=ONE), revoke(), get(b"k"), left(), revoke()],
    "revoke unknown": [revoke(NONE)],
    "time to live of an unknown lease": [left(NONE), left(NONE, keys=True)],
    "keys of a lease": [
        grant(), put(b"k1", lease=ONE), put(b"k2", lease=ONE), put(b"k3"), left(keys=True), left()],
    "key moves to another lease": [
        grant(), grant(TWO), put(b"k", lease=ONE), put(b"k", lease=TWO), left(keys=True),
        left(TWO, keys=True),
        put(b"k", ignore_lease=True), left(TWO, keys=True), put(b"k"), left(TWO, keys=True), get(b"k")],
})


@group.case(hidden=["ID"])
def grant_with_a_number_of_etcds_choice(run):
    answer = run.call("Lease/LeaseGrant", TTL=1000)
    run.note("number", positive=answer.ID > 0)
    run.call("Lease/LeaseTimeToLive", ID=answer.ID)


@group.case(slow=True)
def expiry(run):
    run.call("Lease/LeaseGrant", ID=ONE, TTL=1)
    run.quiet("KV/Put", key=b"k", value=b"v", lease=ONE)
    run.wait_until_gone(b"k")
    run.call("Lease/LeaseTimeToLive", ID=ONE)


# Heartbeats

@group.case()
def heartbeats(run):
    run.quiet("Lease/LeaseGrant", ID=ONE, TTL=1000)
    run.quiet("Lease/LeaseGrant", ID=TWO, TTL=2000)
    stream = run.stream("Lease/LeaseKeepAlive", {"ID": ONE})
    run.take(stream)
    for identifier in [TWO, ONE, ONE, TWO]:
        run.send(stream, ID=identifier)
        run.take(stream)
    stream.half_close()
    run.finish(stream)


@group.case()
def heartbeat_of_an_unknown_lease(run):
    """An answer with TTL 0; the stream goes on."""
    run.quiet("Lease/LeaseGrant", ID=ONE, TTL=1000)
    stream = run.stream("Lease/LeaseKeepAlive", {"ID": NONE})
    run.take(stream)
    run.send(stream, ID=ONE)
    run.take(stream)
    run.quiet("Lease/LeaseRevoke", ID=ONE)
    run.send(stream, ID=ONE)
    run.take(stream)
    stream.half_close()
    run.finish(stream)


@group.case()
def heartbeat_and_half_close_at_once(run):
    """What is asked before the half-close is answered after it."""
    run.quiet("Lease/LeaseGrant", ID=ONE, TTL=1000)
    stream = run.stream("Lease/LeaseKeepAlive", {"ID": ONE})
    stream.half_close()
    run.finish(stream)


@group.case()
def half_close_without_heartbeat(run):
    stream = run.stream("Lease/LeaseKeepAlive")
    stream.half_close()
    run.finish(stream)


@group.case()
def many_heartbeats_at_once(run):
    """Twenty leases, each asked for five times without waiting: as many answers, each lease's in order."""
    for number in range(20):
        run.quiet("Lease/LeaseGrant", ID=ONE + number, TTL=1000 + 100 * number)
    requests = [{"ID": ONE + number} for _ in range(5) for number in range(20)]
    stream = run.stream("Lease/LeaseKeepAlive", *requests)
    stream.half_close()
    answers = stream.rest()
    run.note("answers", **{hex(number): [answer.TTL for answer in answers if answer.ID == number]
                           for number in range(ONE, ONE + 20)}, **stream.ended)


@group.case()
def heartbeats_of_two_streams(run):
    """Both ask for the same lease; both get their answers."""
    run.quiet("Lease/LeaseGrant", ID=ONE, TTL=1000)
    streams = [run.stream("Lease/LeaseKeepAlive", *[{"ID": ONE}] * 3) for _ in range(2)]
    for stream in streams:
        stream.half_close()
        run.finish(stream)


@group.case(slow=True)
def nobody_but_the_client_prolongs(run):
    """After its client's last heartbeat a lease dies, even while the stream stays open. Its twin, which gets
    heartbeats all the time, does not."""
    for lease, key in [(ONE, b"silent"), (TWO, b"beating")]:
        run.quiet("Lease/LeaseGrant", ID=lease, TTL=2)
        run.quiet("KV/Put", key=key, value=b"v", lease=lease)
    silent, beating = (run.stream("Lease/LeaseKeepAlive", {"ID": lease}) for lease in (ONE, TWO))
    run.take(silent)

    def is_gone():
        run.send(beating, ID=TWO)
        assert beating.next().TTL > 0
        return run.quiet("KV/Range", key=b"silent").count == 0

    until(is_gone, pause=0.1)
    run.call("KV/Range", key=b"beating", keys_only=True)


@group.case()
def heartbeat_with_leader_required(run):
    run.quiet("Lease/LeaseGrant", ID=ONE, TTL=1000)
    stream = run.stream("Lease/LeaseKeepAlive", {"ID": ONE}, metadata=[("hasleader", "true")])
    run.take(stream)
    stream.half_close()
    run.finish(stream)


@group.case()
def cancelled_stream(run):
    run.quiet("Lease/LeaseGrant", ID=ONE, TTL=1000)
    stream = run.stream("Lease/LeaseKeepAlive", {"ID": ONE})
    run.take(stream)
    stream.cancel()
    run.call("Lease/LeaseTimeToLive", ID=ONE)
