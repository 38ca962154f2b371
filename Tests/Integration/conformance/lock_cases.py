"""Lock and Election."""

from support.waiting import until

from conformance.case import Group

group = Group("lock")

ONE, TWO = 0x1001, 0x1002

# With authentication etcd leaves the key of a waiter that gave up: it removes it without the caller's token.
NO_AUTH = {"auth": False}


def leases(run):
    for identifier in [ONE, TWO]:
        run.quiet("Lease/LeaseGrant", ID=identifier, TTL=1000)


@group.case()
def lock_and_unlock(run):
    leases(run)
    lock = run.call("Lock/Lock", name=b"mutex", lease=ONE)
    run.call("KV/Range", key=b"mutex/", range_end=b"mutex0")
    run.call("Lock/Unlock", key=lock.key)
    run.call("KV/Range", key=b"mutex/", range_end=b"mutex0")


@group.case()
def lock_twice_by_one_lease(run):
    leases(run)
    run.call("Lock/Lock", name=b"mutex", lease=ONE)
    run.call("Lock/Lock", name=b"mutex", lease=ONE)


@group.case()
def lock_without_lease(run):
    """etcd makes one."""
    lock = run.call("Lock/Lock", name=b"mutex", hidden=["key"])
    run.note("key", begins=lock.key.startswith(b"mutex/"))
    run.call("Lock/Unlock", key=lock.key)


@group.case()
def lock_with_an_unknown_lease(run):
    run.call("Lock/Lock", name=b"mutex", lease=0x4711)


@group.case()
def lock_without_name(run):
    leases(run)
    run.call("Lock/Lock", name=b"", lease=ONE)


@group.case()
def unlock_of_nothing(run):
    run.call("Lock/Unlock", key=b"mutex/4711")
    run.call("Lock/Unlock", key=b"")


@group.case(**NO_AUTH)
def lock_waits_until_its_deadline(run):
    """Whoever gives up leaves nothing behind that others would wait for."""
    leases(run)
    lock = run.call("Lock/Lock", name=b"mutex", lease=ONE)
    run.call("Lock/Lock", name=b"mutex", lease=TWO, timeout=0.4)
    until(lambda: run.quiet("KV/Range", key=b"mutex/", range_end=b"mutex0").count == 1)
    run.call("Lock/Unlock", key=lock.key)
    run.call("Lock/Lock", name=b"mutex", lease=TWO)


@group.case(**NO_AUTH)
def lock_waits_until_it_is_cancelled(run):
    leases(run)
    run.call("Lock/Lock", name=b"mutex", lease=ONE)
    waiting = run.later("Lock/Lock", name=b"mutex", lease=TWO)
    run.wait_for_keys(b"mutex/", 2)
    waiting.cancel()
    until(lambda: run.quiet("KV/Range", key=b"mutex/", range_end=b"mutex0").count == 1)


@group.case()
def lock_passes_on(run):
    leases(run)
    lock = run.call("Lock/Lock", name=b"mutex", lease=ONE)
    waiting = run.later("Lock/Lock", name=b"mutex", lease=TWO)
    run.wait_for_keys(b"mutex/", 2)
    run.call("Lock/Unlock", key=lock.key)
    waiting.record()


@group.case()
def lock_of_a_lease_that_ends(run):
    leases(run)
    run.call("Lock/Lock", name=b"mutex", lease=ONE)
    waiting = run.later("Lock/Lock", name=b"mutex", lease=TWO)
    run.wait_for_keys(b"mutex/", 2)
    run.call("Lease/LeaseRevoke", ID=ONE)
    waiting.record()


# Election

election = Group("election")


@election.case()
def campaign_and_resign(run):
    leases(run)
    run.call("Election/Leader", name=b"chair")
    won = run.call("Election/Campaign", name=b"chair", lease=ONE, value=b"one")
    run.call("Election/Leader", name=b"chair")
    leader = {"name": b"chair", "key": won.leader.key, "rev": won.leader.rev, "lease": ONE}
    run.call("Election/Proclaim", leader=leader, value=b"still one")
    run.call("Election/Leader", name=b"chair")
    run.call("Election/Resign", leader=leader)
    run.call("Election/Leader", name=b"chair")
    run.call("Election/Proclaim", leader=leader, value=b"no more")
    run.call("Election/Resign", leader=leader)


@election.case()
def without_a_leader(run):
    run.call("Election/Proclaim", value=b"x")
    run.call("Election/Resign")
    nobody = {"name": b"chair", "key": b"chair/1001", "rev": 1, "lease": ONE}
    run.call("Election/Proclaim", leader=nobody, value=b"x")


@election.case()
def campaign_with_an_unknown_lease(run):
    run.call("Election/Campaign", name=b"chair", lease=0x4711, value=b"x")


@election.case(**NO_AUTH)
def campaign_waits_until_its_deadline(run):
    leases(run)
    run.call("Election/Campaign", name=b"chair", lease=ONE, value=b"one")
    run.call("Election/Campaign", name=b"chair", lease=TWO, value=b"two", timeout=0.4)
    until(lambda: run.quiet("KV/Range", key=b"chair/", range_end=b"chair0").count == 1)
    run.call("Election/Leader", name=b"chair")


@election.case()
def campaign_passes_on(run):
    leases(run)
    run.call("Election/Campaign", name=b"chair", lease=ONE, value=b"one")
    waiting = run.later("Election/Campaign", name=b"chair", lease=TWO, value=b"two")
    run.wait_for_keys(b"chair/", 2)
    run.call("Lease/LeaseRevoke", ID=ONE)
    waiting.record()
    run.call("Election/Leader", name=b"chair")


@election.case()
def observe(run):
    leases(run)
    won = run.call("Election/Campaign", name=b"chair", lease=ONE, value=b"one")
    stream = run.stream("Election/Observe", {"name": b"chair"})
    run.take(stream)
    leader = {"name": b"chair", "key": won.leader.key, "rev": won.leader.rev, "lease": ONE}
    run.call("Election/Proclaim", leader=leader, value=b"more")
    run.take(stream)
    run.call("Election/Resign", leader=leader)
    run.call("Election/Campaign", name=b"chair", lease=TWO, value=b"two")
    run.take(stream)


@election.case()
def observe_before_there_is_a_leader(run):
    leases(run)
    stream = run.stream("Election/Observe", {"name": b"chair"})
    run.call("Election/Campaign", name=b"chair", lease=ONE, value=b"one")
    run.take(stream)


@election.case()
def observe_until_the_deadline(run):
    leases(run)
    run.call("Election/Campaign", name=b"chair", lease=ONE, value=b"one")
    stream = run.stream("Election/Observe", {"name": b"chair"}, timeout=0.4)
    run.finish(stream)
