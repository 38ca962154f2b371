"""Auth: users and roles, and who may do what."""

from conformance.case import Group
from support.schema import Rev

group = Group("auth", hidden=["token"])

READ, WRITE, READ_WRITE = range(3)
USER, ROLE = {"name": "carol"}, {"role": "guest"}


def permission(kind=READ, key=b"g/", range_end=b"g0"):
    return "Auth/RoleGrantPermission", {
        "name": "guest", "perm": {"permType": kind, "key": key, "range_end": range_end}}


group.table({
    "users": [
        ("Auth/UserAdd", {**USER, "password": "secret"}), ("Auth/UserAdd", {**USER, "password": "secret"}),
        ("Auth/UserGet", USER), ("Auth/UserList", {}),
        ("Auth/UserChangePassword", {**USER, "password": "new"}), ("Auth/UserDelete", USER),
        ("Auth/UserDelete", USER), ("Auth/UserGet", USER), ("Auth/UserList", {})],
    "user without password": [
        ("Auth/UserAdd", {**USER, "options": {"no_password": True}}),
        ("Auth/Authenticate", {**USER, "password": ""}), ("Auth/UserDelete", USER)],
    "unknown users": [
        ("Auth/UserGet", {"name": "ghost"}), ("Auth/UserDelete", {"name": "ghost"}),
        ("Auth/UserChangePassword", {"name": "ghost", "password": "x"}),
        ("Auth/UserGrantRole", {"user": "ghost", "role": "guest"}),
        ("Auth/UserRevokeRole", {"name": "ghost", "role": "guest"})],
    "user without name": [("Auth/UserAdd", {"name": "", "password": "x"}), ("Auth/UserGet", {})],
    "roles": [
        ("Auth/RoleAdd", {"name": "guest"}), ("Auth/RoleAdd", {"name": "guest"}), ("Auth/RoleGet", ROLE),
        permission(), permission(WRITE, b"h", b""), permission(READ_WRITE), permission(READ, b"x", b"\0"),
        ("Auth/RoleGet", ROLE), ("Auth/RoleList", {}),
        ("Auth/RoleRevokePermission", {**ROLE, "key": b"h"}),
        ("Auth/RoleRevokePermission", {**ROLE, "key": b"h"}),
        ("Auth/RoleGet", ROLE), ("Auth/RoleDelete", ROLE), ("Auth/RoleDelete", ROLE), ("Auth/RoleList", {})],
    "unknown roles": [
        ("Auth/RoleGet", {"role": "ghost"}), ("Auth/RoleDelete", {"role": "ghost"}),
        ("Auth/RoleGrantPermission", {"name": "ghost", "perm": {"key": b"k"}}),
        ("Auth/RoleRevokePermission", {"role": "ghost", "key": b"k"})],
    "role without name": [("Auth/RoleAdd", {"name": ""})],
    "roles of users": [
        ("Auth/RoleAdd", {"name": "guest"}), ("Auth/UserAdd", {**USER, "password": "x"}),
        ("Auth/UserGrantRole", {"user": "carol", "role": "guest"}), ("Auth/UserGet", USER),
        ("Auth/UserGrantRole", {"user": "carol", "role": "ghost"}),
        ("Auth/UserRevokeRole", {"name": "carol", "role": "ghost"}),
        ("Auth/UserRevokeRole", {"name": "carol", "role": "guest"}), ("Auth/UserGet", USER),
        ("Auth/UserDelete", USER), ("Auth/RoleDelete", ROLE)],
})
group.table({"status": [("Auth/AuthStatus", {}), ("Auth/AuthStatus", {"by": "nobody"})]}, since=(3, 5))
group.table({
    "off: not possible": [
        ("Auth/AuthEnable", {}), ("Auth/AuthDisable", {}),
        ("Auth/Authenticate", {"name": "root", "password": "x"})],
}, auth=False)
group.table({
    "a token that nobody asked for": [("KV/Range", {"key": b"k", "metadata": [("token", "nonsense.1")]})],
}, auth=False)

identity = Group("identity", auth=True, hidden=["token"])


def everything(**who):
    """One call of each kind, as that user."""
    calls = [
        ("KV/Put", {"key": b"a/k", "value": b"v"}), ("KV/Range", {"key": b"a/k"}),
        ("KV/Put", {"key": b"r/k"}),
        ("KV/Range", {"key": b"r/k"}), ("KV/Range", {"key": b"w/k"}), ("KV/Put", {"key": b"w/k"}),
        ("KV/Put", {"key": b"w/k", "prev_kv": True}), ("KV/Range", {"key": b"x"}), ("KV/Put", {"key": b"x"}),
        ("KV/Range", {"key": b"a/", "range_end": b"a0"}), ("KV/Range", {"key": b"a/", "range_end": b"b"}),
        ("KV/Range", {"key": b"a/k", "serializable": True}),
        ("KV/Range", {"key": b"x", "serializable": True}),
        ("KV/Range", {"key": b"\0", "range_end": b"\0"}), ("KV/DeleteRange", {"key": b"a/k"}),
        ("KV/DeleteRange", {"key": b"x"}), ("KV/DeleteRange", {"key": b"a/", "range_end": b"\0"}),
        ("KV/Txn", {"success": [{"request_put": {"key": b"a/t"}}, {"request_range": {"key": b"r/k"}}]}),
        ("KV/Txn", {"success": [{"request_put": {"key": b"x"}}]}),
        ("KV/Txn", {"compare": [{"key": b"x"}], "success": [{"request_put": {"key": b"a/t"}}]}),
        ("KV/Txn", {"failure": [{"request_txn": {"success": [{"request_put": {"key": b"x"}}]}}]}),
        ("KV/Compact", {"revision": 2**40}), ("Lease/LeaseLeases", {}),
        ("Lease/LeaseTimeToLive", {"ID": 4711}), ("Lease/LeaseRevoke", {"ID": 4711}),
        ("Cluster/MemberList", {}), ("Cluster/MemberRemove", {"ID": 4711}), ("Maintenance/Status", {}),
        ("Maintenance/Defragment", {}), ("Maintenance/Alarm", {}),
        ("Maintenance/HashKV", {"revision": 2**40}),
        ("Maintenance/MoveLeader", {"targetID": 4711}), ("Auth/UserList", {}), ("Auth/RoleList", {}),
        ("Auth/UserGet", {"name": "alice"}), ("Auth/UserGet", {"name": "bob"}),
        ("Auth/RoleGet", {"role": "limited"}),
        ("Auth/UserAdd", {"name": "mallory", "password": "x"}), ("Auth/AuthEnable", {}),
        ("Auth/UserChangePassword", {"name": "ghost", "password": "x"})]
    return [(name, {**fields, **who}) for name, fields in calls]


TOKENLESS = {"by": "nobody"}

identity.table({
    "limited user": everything(by="alice"),
    "user without roles": everything(by="bob"),
    "nobody": everything(**TOKENLESS),
    "wrong token": everything(metadata=[("token", "nonsense.1")], **TOKENLESS),
    "empty token": everything(metadata=[("token", "")], **TOKENLESS),
    "log in": [
        ("Auth/Authenticate", {"name": "alice", "password": "wonderland", **TOKENLESS}),
        ("Auth/Authenticate", {"name": "alice", "password": "wrong", **TOKENLESS}),
        ("Auth/Authenticate", {"name": "ghost", "password": "x", **TOKENLESS}),
        ("Auth/Authenticate", TOKENLESS)],
    "roles that are in use": [("Auth/RoleDelete", {"role": "root"}), ("Auth/UserDelete", {"name": "root"})],
})


@identity.case()
def token_under_its_other_name(run):
    """`authorization` counts where there is no `token`."""
    for user in ["root", "alice"]:
        token = run.tokens[user]
        for metadata in [[("authorization", token)], [("authorization", "nonsense"), ("token", token)]]:
            run.call("KV/Put", key=b"x", by="nobody", metadata=metadata)


@identity.case()
def token_that_was_taken_back(run):
    """A changed password ends the user's tokens."""
    run.quiet("Auth/UserAdd", name="carol", password="old")
    try:
        token = [("token", run.quiet("Auth/Authenticate", name="carol", password="old").token)]
        run.call("KV/Range", key=b"k", by="nobody", metadata=token)
        run.quiet("Auth/UserChangePassword", name="carol", password="new")
        run.call("KV/Range", key=b"k", by="nobody", metadata=token)
        stream = run.stream("Watch/Watch", {"create_request": {"key": b"k"}}, by="nobody", metadata=token)
        run.take(stream)
    finally:
        run.quiet("Auth/UserDelete", name="carol")


@identity.case()
def watches(run):
    """What a user may not read it may not watch, and nobody else suffers for it."""
    allowed = run.watch({"key": b"a/", "range_end": b"a0"}, by="alice").created()
    for create in [{"key": b"x"}, {"key": b"a/", "range_end": b"b"}, {"key": b"w/k"}]:
        run.watch(create, by="alice").canceled()
        run.watch(create, by="bob").canceled()
        run.watch(create, by="root").created()
    run.quiet("KV/Put", key=b"a/k", value=b"v")
    allowed.events(1)


@identity.case()
def watch_of_the_same_range_by_another(run):
    """root watches first; that opens nothing for the others."""
    first = run.watch({"key": b"x"}, by="root").created()
    for user in ["alice", "bob", "nobody"]:
        other = run.watch({"key": b"x"}, {"key": b"x", "start_revision": Rev(1)}, by=user)
        other.canceled(2)
    run.quiet("KV/Put", key=b"x", value=b"v")
    first.events(1)


@identity.case()
def watch_with_a_wrong_token(run):
    stream = run.stream(
        "Watch/Watch", {"create_request": {"key": b"a/k"}}, by="nobody", metadata=[("token", "nonsense.1")])
    run.take(stream)


@identity.case()
def refused_and_allowed_on_one_stream(run):
    watch = run.watch({"key": b"x"}, {"key": b"a/k"}, {"key": b"y"}, {"key": b"r/k"}, by="alice").created(4)
    run.quiet("KV/Put", key=b"a/k", value=b"v")
    watch.events(1)


@identity.case()
def heartbeats(run):
    """Whoever has a lease with keys that are not his."""
    run.quiet("Lease/LeaseGrant", ID=0x1001, TTL=1000)
    run.quiet("KV/Put", key=b"x", lease=0x1001)
    for user in ["root", "alice", "bob", "nobody"]:
        stream = run.stream("Lease/LeaseKeepAlive", {"ID": 0x1001}, by=user)
        run.take(stream)
        stream.half_close()
        run.finish(stream)
        run.call("Lease/LeaseTimeToLive", ID=0x1001, keys=True, by=user)
        run.call("Lease/LeaseRevoke", ID=0x1001, by=user) if user != "root" else None


@identity.case()
def serializable_reads_of_others(run):
    """What one user has read is not for another, not even from a cache."""
    run.quiet("KV/Put", key=b"x", value=b"secret")
    for user in ["root", "alice", "bob", "nobody", "root"]:
        run.call("KV/Range", key=b"x", serializable=True, by=user)
        run.call("KV/Range", key=b"x", by=user)


@identity.case()
def locks(run):
    run.quiet("Lease/LeaseGrant", ID=0x1001, TTL=1000)
    for user in ["alice", "bob", "nobody"]:
        run.call("Lock/Lock", name=b"mutex", lease=0x1001, by=user, timeout=2)
        run.call("Election/Campaign", name=b"chair", lease=0x1001, by=user, timeout=2)
        run.call("Election/Leader", name=b"chair", by=user)
        stream = run.stream("Election/Observe", {"name": b"chair"}, by=user)
        run.finish(stream)
    lock = run.call("Lock/Lock", name=b"a/mutex", lease=0x1001, by="alice")
    run.call("Lock/Unlock", key=lock.key, by="bob")
    run.call("Lock/Unlock", key=lock.key, by="alice")


@identity.case(namespace=False)
def snapshot(run):
    for user in ["alice", "nobody"]:
        stream = run.stream("Maintenance/Snapshot", {}, by=user)
        stream.rest()
        run.note("snapshot", **stream.ended)


@identity.case()
def off_and_on_again(run):
    run.call("Auth/AuthDisable", by="alice")
    run.call("Auth/AuthDisable")
    run.call("KV/Range", key=b"x", by="nobody")
    run.call("KV/Range", key=b"x", by="alice")
    run.call("Auth/AuthEnable", by="nobody")
    run.call("KV/Range", key=b"x", by="nobody")
    run.call("KV/Range", key=b"x", by="alice")
    run.login()
    run.call("KV/Range", key=b"x", by="alice")
    run.call("KV/Range", key=b"a/k", by="alice")
