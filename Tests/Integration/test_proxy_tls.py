"""TLS of the gRPC proxy towards its clients and towards etcd: every flag."""

import re
import ssl
import stat
import subprocess

import pytest

from support import gateway as program
from support.certificates import Authority
from support.etcds import Etcd
from support.frames import PREFACE, SETTINGS, frame
from support.grpc_calls import Caller, credentials, request
from support.net import connect, free_port, read_exactly


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """An authority that nobody trusts."""
    made = Authority(tmp_path_factory.mktemp("stranger"), "stranger")
    made.issue("stranger-client")
    return made


@pytest.fixture(scope="module")
def open_tls_etcd(tmp_path_factory, authority):
    """An etcd with TLS that asks nobody for a certificate."""
    member = Etcd(
        "open", tmp_path_factory.mktemp("etcd-open-tls"), scheme="https",
        extra=["--cert-file", authority.certificate("member"), "--key-file", authority.key("member")])
    member.start()
    with Caller(member.client, credentials(authority)) as caller:
        caller.put(b"ready", b"1")
    yield member
    member.end()


def own_files(authority, name="member"):
    return ["--cert-file", authority.certificate(name), "--key-file", authority.key(name)]


def context(authority, *protocols, client=None):
    made = ssl.create_default_context(cafile=authority.certificate())
    if protocols:
        made.set_alpn_protocols(protocols)
    if client:
        made.load_cert_chain(authority.certificate(client), authority.key(client))
    return made


def wrapped(proxy, settings):
    return settings.wrap_socket(connect(proxy.address, 10), server_hostname="localhost")


def is_refused(proxy, settings):
    """Whether a client of this kind gets no page. With TLS 1.3 it hears of it when it reads."""
    try:
        with wrapped(proxy, settings) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            return client.recv(100) == b""
    except (ssl.SSLError, ConnectionError):
        return True


def curl(*arguments):
    return subprocess.run(["curl", "-sS", "--max-time", "15", *arguments], capture_output=True, text=True)


# Towards clients.


def test_calls_and_pages_share_a_port(proxy, authority):
    started = proxy(*own_files(authority))
    with Caller(started.address, credentials(authority)) as caller:
        caller.put(b"tls", b"1")
        assert caller.get(b"tls") == b"1"
    for version, flags in [("1.1", ["--http1.1"]), ("2", ["--http2"]), ("1.1", ["--http1.0", "--no-alpn"])]:
        answer = curl(*flags, "--cacert", authority.certificate(), "-w", " %{http_version}",
                      f"https://{started.address}/health")
        assert answer.stdout == '{"health":"true","reason":""} ' + version, answer


@pytest.mark.parametrize("offered, chosen", [
    (["h2"], "h2"), (["http/1.1"], "http/1.1"), (["http/1.1", "h2"], "h2"), ([], None)])
def test_application_protocols(proxy, authority, offered, chosen):
    started = proxy(*own_files(authority))
    with wrapped(started, context(authority, *offered)) as client:
        assert client.selected_alpn_protocol() == chosen
        if chosen == "h2":
            client.sendall(PREFACE + frame(SETTINGS, 0, 0))
            assert read_exactly(client, 9)[3] == SETTINGS
        else:
            client.sendall(b"GET /proxy/health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"


def test_http2_without_a_protocol_chosen(proxy, authority):
    started = proxy(*own_files(authority))
    with wrapped(started, context(authority)) as client:
        client.sendall(PREFACE + frame(SETTINGS, 0, 0))
        assert read_exactly(client, 9)[3] == SETTINGS


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_the_end_is_said(proxy, authority, version):
    started = proxy(*own_files(authority))
    settings = context(authority)
    settings.maximum_version = version
    # Python takes an end without close_notify for a fault only if told to, twice.
    settings.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    with settings.wrap_socket(
            connect(started.address, 10), server_hostname="localhost", suppress_ragged_eofs=False) as client:
        client.sendall(b"GET /proxy/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := client.recv(4096):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 200")


def test_client_certificates_are_required_with_an_authority(proxy, authority, stranger):
    started = proxy(*own_files(authority), "--trusted-ca-file", authority.certificate())
    assert is_refused(started, context(authority))
    foreign = context(authority)
    foreign.load_cert_chain(stranger.certificate("stranger-client"), stranger.key("stranger-client"))
    assert is_refused(started, foreign)
    assert not is_refused(started, context(authority, client="client"))
    with Caller(started.address, credentials(authority, "client")) as caller:
        caller.put(b"certified", b"1")


@pytest.mark.parametrize("isBinary", [False, True])
def test_revoked_clients_are_refused(proxy, authority, tmp_path, isBinary):
    authority.issue("revoked")
    file = tmp_path / "revoked.crl"
    file.write_text(authority.revoke("revoked"))
    if isBinary:
        subprocess.run(["openssl", "crl", "-in", file, "-outform", "der", "-out", tmp_path / "der"], check=True)
        file = tmp_path / "der"
    started = proxy(
        *own_files(authority), "--trusted-ca-file", authority.certificate(), "--client-crl-file", file)
    assert is_refused(started, context(authority, client="revoked"))
    assert not is_refused(started, context(authority, client="client"))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("flags, spoken", [
    ([], {"TLSv1.2", "TLSv1.3"}), (["--tls-min-version", "TLS1.3"], {"TLSv1.3"}),
    (["--tls-max-version", "TLS1.2"], {"TLSv1.2"}), (["--tls-min-version", ""], {"TLSv1.2", "TLSv1.3"})])
def test_versions(proxy, authority, flags, spoken):
    started = proxy(*own_files(authority), *flags)
    found = set()
    for version in [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]:
        settings = context(authority)
        settings.set_ciphers("ALL:@SECLEVEL=0")
        settings.minimum_version = settings.maximum_version = version
        try:
            with wrapped(started, settings) as client:
                found.add(client.version())
        except ssl.SSLError:
            pass
    assert found == spoken


def test_cipher_suites_in_the_order_given(proxy, authority):
    chacha, aes = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
    started = proxy(*own_files(authority), "--listen-cipher-suites", f"{chacha},{aes}")
    settings = context(authority)
    settings.maximum_version = ssl.TLSVersion.TLSv1_2
    with wrapped(started, settings) as client:
        assert client.cipher()[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"
    settings.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    with pytest.raises(ssl.SSLError):
        wrapped(started, settings)


def test_auto_tls_keeps_its_certificate(proxy, tmp_path):
    flags = ["--auto-tls", "--data-dir", tmp_path / "data"]
    first = proxy(*flags)
    files = tmp_path / "data" / "fixtures" / "proxy"
    text = (files / "cert.pem").read_text()
    assert stat.S_IMODE((files / "key.pem").stat().st_mode) == 0o600
    for host in ["127.0.0.1", "localhost"]:
        port = first.address.rpartition(":")[2]
        answer = curl("--cacert", str(files / "cert.pem"), f"https://{host}:{port}/health")
        assert answer.stdout == '{"health":"true","reason":""}', answer
    assert first.end() == 0
    second = proxy(*flags)
    assert second.find("using the self-signed certificate found")
    assert (files / "cert.pem").read_text() == text


def test_auto_tls_yields_to_files(proxy, authority, tmp_path):
    started = proxy("--auto-tls", "--data-dir", tmp_path / "data", *own_files(authority))
    assert not is_refused(started, context(authority))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("flags, text", [
    (["--cert-file", "{cert}"], r"KeyFile and CertFile must both be present\[key: , cert: .*member.crt\]"),
    (["--key-file", "{key}"], r"KeyFile and CertFile must both be present\[key: .*member.key, cert: \]"),
    (["--trusted-ca-file", "{ca}"], r"cannot listen on TLS for .*: KeyFile and CertFile are not presented"),
    (["--cert-file", "{cert}", "--key-file", "{key}", "--listen-cipher-suites", "TLS_X"],
     'unexpected TLS cipher suite "TLS_X"'),
    (["--cert-file", "/nowhere.crt", "--key-file", "{key}"], "open /nowhere.crt: no such file or directory"),
    (["--cert-file", "{cert}", "--key-file", "{ca_key}"], "private key does not match public key"),
    (["--cert", "{client}", "--key", "{client_key}"], r"cert has non empty Common Name \(client\): .*client.crt"),
    (["--cert", "{client}"], r"KeyFile and CertFile must both be present\[key: , cert: .*client.crt\]"),
    (["--cacert", "/nowhere.crt"], "open /nowhere.crt: no such file or directory"),
])
def test_what_cannot_work_ends_the_start(authority, flags, text):
    names = {
        "cert": authority.certificate("member"), "key": authority.key("member"), "ca": authority.certificate(),
        "ca_key": authority.key("ca"), "client": authority.certificate("client"),
        "client_key": authority.key("client")}
    result = program.run(
        "grpc-proxy", "start", "--listen-addr", f"127.0.0.1:{free_port()}", *[flag.format(**names) for flag in flags])
    assert result.returncode == 1
    assert re.search(text, result.stderr), result.stderr


# Towards etcd.


def check(started, *, works):
    with Caller(started.address) as caller:
        if works:
            caller.put(b"upstream", b"1")
            assert caller.get(b"upstream") == b"1"
        else:
            ended = caller.unary("KV/Range", request("KV/Range", key=b"upstream"), timeout=1)[1]
            assert ended["code"] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def test_a_client_certificate_for_etcd(proxy, authority, tls_etcd):
    own = ["--cert", authority.certificate("anonymous"), "--key", authority.key("anonymous")]
    started = proxy("--endpoints", f"https://{tls_etcd.client}", "--cacert", authority.certificate(), *own)
    check(started, works=True)
    # No scheme, and files: TLS.
    check(proxy("--endpoints", tls_etcd.client, "--cacert", authority.certificate(), *own), works=True)


def test_etcd_that_wants_a_certificate_gets_none(proxy, authority, tls_etcd):
    started = proxy("--endpoints", f"https://{tls_etcd.client}", "--cacert", authority.certificate())
    check(started, works=False)


def test_an_authority_alone(proxy, authority, open_tls_etcd):
    check(proxy("--endpoints", f"https://{open_tls_etcd.client}", "--cacert", authority.certificate()), works=True)


def test_etcd_of_an_unknown_authority(proxy, stranger, open_tls_etcd):
    url = f"https://{open_tls_etcd.client}"
    started = proxy("--endpoints", url, "--cacert", stranger.certificate())
    check(started, works=False)
    assert "certificate" in started.wait_for("TLS with an endpoint failed")["error"]
    # The system's authorities know it no better.
    check(proxy("--endpoints", url), works=False)


def test_unverified_etcd(proxy, open_tls_etcd, stranger):
    started = proxy("--endpoints", open_tls_etcd.client, "--insecure-skip-tls-verify")
    assert [line for line in started.lines if "skips authentication" in line["msg"] and line["level"] == "warn"]
    check(started, works=True)
    check(proxy("--endpoints", f"https://{open_tls_etcd.client}", "--insecure-skip-tls-verify", "--cacert",
                stranger.certificate()), works=True)


def test_etcd_by_a_name_its_certificate_lacks(proxy, authority, tmp_path):
    authority.issue("elsewhere", names="DNS:elsewhere.example")
    member = Etcd("elsewhere", tmp_path, scheme="https", extra=[
        "--cert-file", authority.certificate("elsewhere"), "--key-file", authority.key("elsewhere")])
    member.start()
    try:
        started = proxy("--endpoints", f"https://{member.client}", "--cacert", authority.certificate())
        check(started, works=False)
    finally:
        member.end()


def test_the_first_scheme_decides(proxy, etcd, authority):
    started = proxy("--endpoints", f"http://{etcd.client}", "--cacert", authority.certificate())
    check(started, works=True)


def test_metrics_of_an_etcd_with_tls(proxy, authority, tls_etcd):
    started = proxy(
        "--endpoints", f"https://{tls_etcd.client}", "--cacert", authority.certificate(),
        "--cert", authority.certificate("anonymous"), "--key", authority.key("anonymous"))
    page = curl(f"http://{started.address}/metrics").stdout
    assert "etcd_server_has_leader 1" in page.splitlines()


