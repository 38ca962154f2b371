"""Fixtures. Every test that has a gateway runs on both kernel interfaces."""

import os
import pathlib
import resource
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from support import gateway as program  # noqa: E402
from support import grpc_proxy  # noqa: E402
from support.certificates import Authority  # noqa: E402
from support.dns_server import DNSServer  # noqa: E402
from support.etcds import Etcd, etcdctl  # noqa: E402
from support.fronts import auth_place, key, memory, open_setting, setting  # noqa: E402, F401
from support.peers import BlackHole, EchoServer, NameServer, Server  # noqa: E402
from support.waiting import until  # noqa: E402

_, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))


def pytest_sessionstart(session):
    if grpc_proxy.IS_OURS and not os.access(program.BINARY, os.X_OK):
        pytest.exit(f"{program.BINARY} is missing: swift build -c release --static-swift-stdlib", 2)


@pytest.fixture(params=["io_uring", "epoll"])
def backend(request):
    return request.param


class Closing:
    """Makes things and closes them at the end of the test."""

    def __init__(self):
        self.made = []

    def keep(self, thing):
        self.made.append(thing)
        return thing

    def close(self):
        for thing in reversed(self.made):
            thing.close()


@pytest.fixture
def peers():
    """Servers behind the gateway: `peers.echo()`, `.named("a")`, `.server()`, `.black_hole()`."""

    class Peers(Closing):
        def echo(self, **options):
            return self.keep(EchoServer(**options))

        def named(self, name, **options):
            return self.keep(NameServer(name, **options))

        def server(self, serve=None, **options):
            return self.keep(Server(serve, **options))

        def black_hole(self):
            return self.keep(BlackHole())

    made = Peers()
    yield made
    made.close()


@pytest.fixture
def gateway(backend):
    """Starts gateways and checks at the end that each exits with status 0 and logged nothing but JSON.

    Without --listen-addr the kernel chooses the port. `expect=None` leaves the exit status to the test."""
    running = []

    def start(*arguments, expect=0, **options):
        arguments = [str(argument) for argument in arguments]
        if "--listen-addr" not in arguments:
            arguments += ["--listen-addr", "127.0.0.1:0"]
        made = program.Gateway("--io-backend", backend, *arguments, **options)
        running.append((made, expect, "console" in arguments))
        return made

    yield start
    for made, expect, isConsole in running:
        status = made.end()
        if expect is not None:
            assert status == expect, made.log
        assert isConsole or not [line for line in made.lines if "not-json" in line], made.log


@pytest.fixture
def proxy(etcd):
    """Starts gRPC proxies, of the plain etcd unless --endpoints says otherwise; checks their ends as `gateway` does."""
    running = []

    def start(*arguments, expect=0, **options):
        arguments = [str(argument) for argument in arguments]
        if "--endpoints" not in arguments:
            arguments += ["--endpoints", etcd.client]
        made = grpc_proxy.GrpcProxy(*arguments, **options)
        running.append((made, expect))
        return made

    yield start
    for made, expect in running:
        status = made.end()
        if expect is not None:
            assert status == expect, made.log
        assert not [line for line in made.lines if "not-json" in line], made.log


@pytest.fixture(scope="session")
def etcd(tmp_path_factory):
    """One plain etcd for all tests that do not break it."""
    member = Etcd("plain", tmp_path_factory.mktemp("etcd"))
    member.start()
    until(member.is_healthy, 40, "etcd", pause=0.05)
    yield member
    member.end()


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("ca"))
    made.issue("member")
    made.issue("client")
    made.issue("anonymous", subject="/O=nobody")
    return made


@pytest.fixture(scope="session")
def tls_flags(authority):
    """etcdctl's flags for the TLS etcd."""
    return ["--cacert", authority.certificate(), "--cert", authority.certificate("client"),
            "--key", authority.key("client")]


@pytest.fixture(scope="session")
def tls_etcd(tmp_path_factory, authority, tls_flags):
    """An etcd that wants client certificates."""
    member = Etcd(
        "secure", tmp_path_factory.mktemp("etcd-tls"), scheme="https",
        extra=["--cert-file", authority.certificate("member"), "--key-file", authority.key("member"),
               "--trusted-ca-file", authority.certificate(), "--client-cert-auth"])
    member.start()

    def is_healthy():
        try:
            return "is healthy" in etcdctl(member.client, "endpoint", "health", flags=tls_flags) or True
        except AssertionError:
            return False

    until(is_healthy, 40, "TLS etcd", pause=0.1)
    yield member
    member.end()


@pytest.fixture
def dns():
    """A DNS server that knows what the test tells it."""
    made = DNSServer()
    yield made
    made.close()
