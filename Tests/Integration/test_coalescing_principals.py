"""Shared watches with authentication on: who may see what, and whose token is used for it."""

import itertools

import pytest

from conformance.places import PASSWORDS
from support.fronts import Setting, User, not_alone
from support.relay import Relay
from support.waiting import until
from support.watches import Log, Watches, end_of

names = itertools.count()


class AuthSetting(Setting):
    """A proxy, and users on both sides of it."""

    def __init__(self, place, *flags, **options):
        super().__init__(place.etcd, *flags, **options)
        self.root = self.user("root", place.etcd.client)
        # A part of alice's range that no other test writes to.
        self.log = Log(self.root, b"a/%d/" % next(names))
        self.range = {"key": self.log.prefix, "range_end": end_of(self.log.prefix)}

    def user(self, name, address=None, password=None, token=None):
        made = User(address or self.address, name, password or PASSWORDS.get(name), token)
        self.made.append(made)
        return made

    def another(self, *prefixes):
        """A user that no other test has, who may read below these prefixes: name and password."""
        name = f"user{next(names)}"
        self.root.ok("Auth/UserAdd", name=name, password="secret")
        self.root.ok("Auth/RoleAdd", name=name)
        self.root.ok("Auth/UserGrantRole", user=name, role=name)
        for prefix in prefixes:
            self.root.ok("Auth/RoleGrantPermission", name=name,
                         perm={"permType": 0, "key": prefix, "range_end": end_of(prefix)})
        return name, "secret"


@pytest.fixture
def setting(auth_place):
    made = AuthSetting(auth_place)
    yield made
    made.close()


@not_alone
def test_tokens_of_one_user_are_one_watch(setting):
    """Each client has a token of its own; etcd sees the user."""
    users = [setting.user("alice") for _ in range(20)]
    assert len({user.token for user in users}) == 20
    streams = [Watches(user, setting.range).created() for user in users]
    setting.log.some()
    for stream in streams:
        stream.sees(setting.log)
    assert (setting.upstream.watchers, setting.upstream.streams) == (1, 1)
    # Users are apart.
    other = Watches(setting.user("root"), setting.range).created()
    assert setting.upstream.watchers == 2
    setting.log.some()
    for stream in [*streams, other]:
        stream.sees(setting.log)


def test_who_may_not_read_never_sees_an_event(setting):
    """Though others watch the same range; the refusal is etcd's own, and the others do not notice it."""
    told = []
    for address in [setting.etcd.client, setting.address]:
        live = [Watches(setting.user(name), setting.range).created() for name in ["root", "alice", "alice"]]
        setting.log.some()
        refused = []
        for client in [setting.user("bob", address), setting.connect(address),
                       setting.user(None, address, token="nonsense.12"), setting.user(None, address, token="x")]:
            stream = Watches(client, setting.range, {**setting.range, "start_revision": setting.log.revision})
            refused.append(stream)
        setting.log.some()
        for stream in refused:
            while stream.waiting and stream.take():
                pass
            told.append((address, stream.told, stream.stream.ended))
        for stream in live:
            stream.sees(setting.log)
        setting.log.some()
        for stream in refused:
            # What is asked for afterwards is answered, and nothing came before it.
            if not stream.stream.ended:
                stream.create(**setting.range)
                stream.created()
                assert all(watcher.canceled and not watcher.events for watcher in stream.all)
        for stream in live:
            stream.sees(setting.log)
    half = len(told) // 2
    assert [each[1:] for each in told[half:]] == [each[1:] for each in told[:half]]


def test_permission_comes_and_goes(setting):
    """etcd asks when a watch is made and not after. What is taken away by another way is known soon."""
    name, password = setting.another()
    user = setting.user(name, password=password)
    permission = {"permType": 0, **setting.range}
    live = [Watches(setting.user("root"), setting.range).created()]

    def may_watch():
        stream = Watches(user, setting.range).created()
        return None if stream.all[0].canceled else stream

    assert not may_watch()
    through = setting.user("root")
    for granting, revoking in [(through, through), (setting.root, setting.root)]:
        granting.ok("Auth/RoleGrantPermission", name=name, perm=permission)
        live.append(until(may_watch))
        live.append(until(may_watch))
        setting.log.some()
        for stream in live:
            stream.sees(setting.log)
        revoking.ok("Auth/RoleRevokePermission", role=name, key=permission["key"],
                    range_end=permission["range_end"])
        if revoking is through:
            assert not may_watch()
        else:
            # Whoever has no way to know of it asks again after a while.
            made = []
            until(lambda: (made.append(may_watch()), made[-1] is None)[1])
        setting.log.some()
        for stream in live:
            stream.sees(setting.log)


def test_token_from_elsewhere(setting):
    """Which user it is of nobody has told the proxy."""
    token = setting.user("alice", setting.etcd.client).token
    streams = [Watches(setting.user(None, token=token), setting.range).created() for _ in range(3)]
    streams.append(Watches(setting.user("alice"), setting.range).created())
    setting.log.some()
    for stream in streams:
        stream.sees(setting.log)
    assert all(not stream.all[0].canceled for stream in streams)


@not_alone
def test_tokens_that_are_no_longer_good(auth_place, peers):
    """After a break the shared watch is made again with a token that still is; only who has none is told."""
    relay = peers.keep(Relay(auth_place.etcd.client))
    setting = AuthSetting(auth_place, endpoints=relay.address)
    try:
        log = setting.log
        name, password = setting.another(b"a/")
        old = [Watches(setting.user(name, password=password), setting.range).created() for _ in range(3)]
        others = [Watches(setting.user("root"), setting.range).created()]
        log.some()
        for new_password in ["second", "third"]:
            # This ends all tokens of the user.
            setting.root.ok("Auth/UserChangePassword", name=name, password=new_password)
            if new_password == "second":
                new = [Watches(setting.user(name, password=new_password), setting.range).created()]
                others += new
            relay.cut()
            log.some()
            for stream in others if new_password == "second" else others[:1]:
                stream.sees(log, 15)
        # Now none of the user's tokens is good.
        reason = Watches(setting.user(None, setting.etcd.client, token="gone.1"), setting.range).created()
        for stream in old + new:
            stream.until(lambda: stream.all[0].canceled, 15)
            assert stream.all[0].canceled.cancel_reason == reason.all[0].canceled.cancel_reason
        fresh = Watches(setting.user(name, password="third"), setting.range).created()
        log.some()
        for stream in [others[0], fresh]:
            stream.sees(log)
    finally:
        setting.close()
