"""Fixtures of the tests that look at a proxy from both sides: an etcd of each release, and a proxy in front."""

import contextlib
import itertools
import pathlib
import tempfile

import pytest

from conformance.places import QUICK, RELEASES, Place
from support.etcds import Etcd
from support.grpc_calls import Caller
from support.upstream import IS_NONE, Front, Upstream
from support.waiting import until

numbers = itertools.count()

not_alone = pytest.mark.skipif(IS_NONE, reason="about what a proxy does")


def releases():
    return [pytest.param(release, marks=pytest.mark.skipif(
        release != "3.4" and not pathlib.Path(program).exists(), reason="scripts/etcd-3.5.sh has not been run"))
        for release, (program, _) in RELEASES.items()]


class Setting:
    """An etcd, the proxy before it, and clients on both sides."""

    def __init__(self, etcd, *flags, endpoints=None):
        self.etcd = etcd
        self.upstream = Upstream(etcd)
        self.made = []
        self.direct = self.connect(etcd.client)
        self.start = lambda: Front(endpoints or etcd.client, *flags)
        self.open()
        self.upstream.settle()

    def open(self):
        self.front = self.start()
        self.address = self.front.address
        until(lambda: self.connect().unary("KV/Range", b"\x0a\x01x")[1]["code"] != "UNAVAILABLE")

    def renew(self):
        """Another proxy: the one before keeps watches for clients who may come back, and nobody wants to wait for their end."""
        self.hang_up()
        self.front.close()
        self.upstream.until_idle()
        self.open()

    def connect(self, address=None):
        """A client with a connection of its own, through the proxy unless said otherwise."""
        self.made.append(Caller(address or self.address))
        return self.made[-1]

    def connections(self, count):
        return [self.connect() for _ in range(count)]

    def hang_up(self):
        """All clients but the direct one are gone."""
        for client in self.made[1:]:
            client.close()
        del self.made[1:]

    def close(self):
        for client in self.made:
            client.close()
        self.front.close()


@pytest.fixture(scope="session")
def memory():
    """A folder in memory where there is a place for that: etcd waits for the disk at every write."""
    place = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=place if place.is_dir() else None, prefix="ringway-") as folder:
        yield pathlib.Path(folder)


@contextlib.contextmanager
def etcd_behind(release, memory, *flags):
    """The proxy under test with these flags, before an etcd of its own."""
    etcd = Etcd(f"etcd{next(numbers)}", memory, program=RELEASES[release][0], extra=QUICK)
    etcd.release = release
    etcd.start()
    until(etcd.is_healthy, 40, "etcd", pause=0.05)
    made = Setting(etcd, *flags)
    yield made
    made.close()
    etcd.end()


@pytest.fixture(scope="module", params=releases())
def open_setting(request, memory):
    """Without authentication."""
    with etcd_behind(request.param, memory) as made:
        yield made


@pytest.fixture
def setting(open_setting):
    yield open_setting
    open_setting.hang_up()


class User(Caller):
    """A client with a token that it got through the address it uses, or with the one given."""

    def __init__(self, address, name=None, password=None, token=None):
        super().__init__(address)
        self.token = token or self.ok("Auth/Authenticate", name=name, password=password).token

    def credentials(self, metadata):
        return [*metadata, ("token", self.token)] if getattr(self, "token", None) else metadata

    def unary(self, name, request, *, metadata=(), **options):
        return super().unary(name, request, metadata=self.credentials(metadata), **options)

    def stream(self, name, *requests, metadata=(), **options):
        return super().stream(name, *requests, metadata=self.credentials(metadata), **options)


@pytest.fixture
def key():
    """A prefix that no other test uses."""
    return b"t%d/" % next(numbers)


@pytest.fixture(scope="module", params=releases())
def auth_place(request, memory, authority):
    """With the users of the conformance tests."""
    folder = memory / f"auth{next(numbers)}"
    folder.mkdir()
    made = Place(request.param, False, True, authority, folder)
    yield made
    made.close()

