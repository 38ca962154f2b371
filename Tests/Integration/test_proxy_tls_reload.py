"""Certificates, authorities and revocation lists that change while the proxy runs. No connection is dropped for it."""

import os
import pathlib
import ssl

import pytest

from support.certificates import Authority
from support.grpc_calls import Caller, credentials, request
from support.net import connect
from support.waiting import until


class Files:
    """What the proxy is started with: copies that the test replaces, by renaming as careful tools do, or in place."""

    def __init__(self, folder):
        self.folder = folder

    def __getitem__(self, name):
        return str(self.folder / name)

    def set(self, name, text, in_place=False):
        target = self.folder / name
        if in_place:
            target.write_text(text)
        else:
            fresh = self.folder / f"{name}.new"
            fresh.write_text(text)
            os.replace(fresh, target)

    def take(self, authority, name, own="server", **how):
        """The certificate and key of that name, under our own name."""
        self.set(f"{own}.key", pathlib.Path(authority.key(name)).read_text(), **how)
        self.set(f"{own}.crt", pathlib.Path(authority.certificate(name)).read_text(), **how)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """An authority that comes to be trusted later."""
    made = Authority(tmp_path_factory.mktemp("newcomer"), "newcomer")
    made.issue("member")
    made.issue("client")
    return made


def context(trusted, authority=None, name=None):
    settings = ssl.create_default_context(cafile=trusted)
    if name:
        settings.load_cert_chain(authority.certificate(name), authority.key(name))
    return settings


def is_served(proxy, settings):
    """Whether a new connection gets a page."""
    try:
        with settings.wrap_socket(connect(proxy.address), server_hostname="localhost") as client:
            client.sendall(b"GET /proxy/health HTTP/1.1\r\nHost: x\r\n\r\n")
            return client.recv(12) == b"HTTP/1.1 200"
    except (ssl.SSLError, ConnectionError):
        return False


RENEWED = "certificates for clients were read anew"
REFUSED = "new certificates for clients are not used"


@pytest.mark.parametrize("in_place", [False, True])
def test_the_servers_certificate(proxy, authority, newcomer, files, in_place):
    files.take(authority, "member")
    started = proxy("--cert-file", files["server.crt"], "--key-file", files["server.key"])
    with Caller(started.address, credentials(authority)) as caller:
        watch = caller.watch(b"reload")
        files.take(newcomer, "member", in_place=in_place)
        started.wait_for(RENEWED)
        until(lambda: is_served(started, context(newcomer.certificate())), 5, "the new certificate")
        assert not is_served(started, context(authority.certificate()))
        # The connection from before goes on.
        caller.put(b"reload", b"1")
        assert watch.next().events[0].kv.value == b"1"
        watch.cancel()


def test_a_bad_certificate_leaves_the_one_before(proxy, authority, files):
    files.take(authority, "member")
    started = proxy("--cert-file", files["server.crt"], "--key-file", files["server.key"])
    files.set("server.crt", "nonsense")
    line = started.wait_for(REFUSED)
    assert files["server.crt"] in line["error"]
    assert is_served(started, context(authority.certificate()))
    files.take(authority, "client")
    started.wait_for(RENEWED)
    assert len(started.find(REFUSED)) <= 2


def test_authorities_and_revoked_clients(proxy, authority, newcomer, files):
    authority.issue("leaver")
    files.set("trusted.crt", pathlib.Path(authority.certificate()).read_text())
    files.set("revoked.crl", authority.revoke())
    started = proxy(
        "--cert-file", authority.certificate("member"), "--key-file", authority.key("member"),
        "--trusted-ca-file", files["trusted.crt"], "--client-crl-file", files["revoked.crl"])
    leaver = context(authority.certificate(), authority, "leaver")
    stranger = context(authority.certificate(), newcomer, "client")
    assert is_served(started, leaver) and not is_served(started, stranger)
    with Caller(started.address, credentials(authority, "leaver")) as caller:
        watch = caller.watch(b"reload")
        files.set("revoked.crl", authority.revoke("leaver"))
        started.wait_for(RENEWED)
        until(lambda: not is_served(started, leaver), 5, "the revocation")
        assert is_served(started, context(authority.certificate(), authority, "client"))
        # Whoever is in stays in, as with etcd.
        caller.put(b"reload", b"2")
        assert watch.next().events[0].kv.value == b"2"
        watch.cancel()
    both = pathlib.Path(authority.certificate()).read_text() + pathlib.Path(newcomer.certificate()).read_text()
    files.set("trusted.crt", both)
    started.wait_for(RENEWED, count=2)
    until(lambda: is_served(started, stranger), 5, "the new authority")


def test_the_certificate_for_etcd(proxy, authority, newcomer, tls_etcd, files):
    """One that etcd does not take, and then one that it takes."""
    newcomer.issue("anonymous", subject="/O=nobody")
    files.take(newcomer, "anonymous", "own")
    started = proxy(
        "--endpoints", f"https://{tls_etcd.client}", "--cacert", authority.certificate(),
        "--cert", files["own.crt"], "--key", files["own.key"])
    with Caller(started.address) as caller:
        assert caller.unary("KV/Range", request("KV/Range", key=b"a"), timeout=1)[1]["code"] != "OK"
        files.take(authority, "anonymous", "own")
        started.wait_for("certificates for etcd were read anew")
        until(lambda: caller.code("KV/Range", key=b"a") == "OK", 15, "etcd")
        watch = caller.watch(b"reload")
        authority.issue("anonymous", subject="/O=nobody")
        files.take(authority, "anonymous", "own")
        started.wait_for("certificates for etcd were read anew", count=2)
        caller.put(b"reload", b"3")
        assert watch.next().events[0].kv.value == b"3"
        watch.cancel()
