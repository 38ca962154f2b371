"""The command line of `grpc-proxy start`: etcd's flags, statuses and texts, and what Ringway adds.

Nothing here starts a proxy: each command line ends by itself, with etcd as with Ringway."""

import re
import socket

import pytest

from support import gateway as program
from support.net import free_port


def both(*arguments):
    """The same command by etcd and by Ringway."""
    return [program.run("grpc-proxy", *arguments, program=name) for name in ["etcd", program.BINARY]]


def flag_lines(text):
    """Each flag's line of a help text, by name."""
    found = re.findall(r"^ +(?:-h, )?--(\S+)(.*)$", text, re.M)
    return {name: rest for name, rest in found}


def flag_type(rest):
    """The type word before the description."""
    return re.match(r" ?(\w*)", rest)[1]


def flag_default(rest):
    found = re.search(r"\(default ([^()]*)\)$", rest)
    return found and found[1]


@pytest.mark.parametrize("arguments", [
    ["--bogus"], ["-x"], ["--endpoints"], ["--enable-pprof=x"], ["--max-send-bytes=1e6"], ["--resolver-ttl=x"],
    ["--max-concurrent-streams=-1"], ["--max-concurrent-streams=4294967296"], ["--max-concurrent-streams="],
    ['--listen-cipher-suites="x'], ["--endpoints=a:1", "--max-recv-bytes=9223372036854775808"],
])
def test_bad_flags_are_refused_in_etcds_words(arguments):
    etcd, ringway = both("start", *arguments)
    assert etcd.returncode == ringway.returncode == 1
    assert ringway.stdout == etcd.stdout == ""
    assert ringway.stderr.splitlines()[0] == etcd.stderr.splitlines()[0]
    assert ringway.stderr.splitlines()[-1] == etcd.stderr.splitlines()[-1]
    assert ringway.stderr.endswith("\n") == etcd.stderr.endswith("\n")


@pytest.mark.parametrize("arguments", [
    ["--resolver-prefix=p"],
    ["--resolver-prefix=p", "--resolver-ttl=-3"],
    ["--resolver-ttl=5"],
    ["--resolver-prefix=p", "--resolver-ttl=5", "--advertise-client-url="],
    ["--resolver-ttl=5", "--max-recv-bytes=1", "--listen-addr=bogus"],
    ["--listen-addr=bogus"],
    ["--listen-addr=a:b:c"],
    ["--listen-addr=[::1"],
    ["--listen-addr=127.0.0.1:70000"],
    ["--listen-addr=127.0.0.1:-1"],
    ["--listen-addr=127.0.0.1:bogus"],
    ["--listen-addr=127.0.0.1:0", "--endpoints="],
    ["--listen-addr=127.0.0.1:0", "--max-send-bytes=100", "--max-recv-bytes=50"],
    ["--listen-addr=127.0.0.1:0", "--max-recv-bytes=50"],
    ["--listen-addr=127.0.0.1:0", "--cert=c"],
    ["--listen-addr=127.0.0.1:0", "--key=k", "--max-recv-bytes=50"],
    ["--listen-addr=127.0.0.1:0", "--metrics-addr=127.0.0.1:9379"],
    ["--listen-addr=127.0.0.1:0", "--metrics-addr=:9379"],
    ["--listen-addr=127.0.0.1:0", "--metrics-addr=%zz"],
    ["--listen-addr=127.0.0.1:0", "--metrics-addr=http://127.0.0.1:x"],
    ["--listen-addr=127.0.0.1:0", "--metrics-addr=http://127.0.0.1"],
    ["--listen-addr=127.0.0.1:0", "--metrics-addr=unixs://sock"],
])
def test_what_cannot_work_is_refused_in_etcds_words(arguments):
    etcd, ringway = both("start", *arguments)
    assert etcd.returncode == ringway.returncode == 1
    assert ringway.stdout == etcd.stdout == ""
    # Before it etcd may have logged that it listens; Ringway looks at everything first, and says what to do.
    assert ringway.stderr.splitlines()[0] == etcd.stderr.splitlines()[-1]
    assert len(ringway.stderr.splitlines()) == 2


@pytest.mark.parametrize("arguments", [
    ["--cert-file=c"],
    ["--key-file=k", "--auto-tls"],
    ["--trusted-ca-file=ca"],
])
def test_listen_files_that_do_not_go_together(arguments):
    etcd, ringway = both("start", *arguments)
    assert etcd.returncode == ringway.returncode == 1
    # etcd has it in a fatal log line.
    assert f'"error":"{ringway.stderr.splitlines()[0]}"' in etcd.stderr


def test_checks_of_later_etcd_releases():
    for arguments, text in [
            (["--auto-tls", "--self-signed-cert-validity=0"],
             "selfSignedCertValidity is invalid,it should be greater than 0"),
            (["--tls-min-version=SSL3"],
             'tls-min-version is invalid: unexpected TLS version "SSL3" (must be one of: TLS1.2, TLS1.3)'),
            (["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
             "min version (TLS1.3) is greater than max version (TLS1.2)"),
            (["--tls-min-version=TLS1.3", "--listen-cipher-suites=x"],
             "cipher suites cannot be configured when only TLS1.3 is enabled")]:
        result = program.run("grpc-proxy", "start", *arguments)
        assert result.returncode == 1
        assert result.stdout == ""
        assert result.stderr.splitlines()[0] == text


def test_etcds_flags_have_etcds_types_and_defaults():
    etcd, ringway = both("start", "--help")
    assert etcd.returncode == ringway.returncode == 0
    assert ringway.stderr == ""
    theirs, ours = flag_lines(etcd.stdout), flag_lines(ringway.stdout)
    assert len(theirs) > 25 and set(theirs) <= set(ours)
    for name, rest in theirs.items():
        if name == "listen-addr":
            # A list here.
            assert flag_type(ours[name]) == "strings"
            assert flag_default(ours[name]) == "[127.0.0.1:23790]"
            continue
        switch = rest.startswith("   ")
        assert ours[name].startswith("   ") == switch, name
        if not switch:
            assert flag_type(ours[name]) == flag_type(rest), name
        assert flag_default(ours[name]) == flag_default(rest), name


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["-h"], ["nonsense", "--help"], ["--", "start"]])
def test_help_of_the_group(arguments):
    etcd, ringway = both(*arguments)
    assert etcd.returncode == ringway.returncode == 0
    assert ringway.stderr == etcd.stderr == ""
    assert ringway.stdout == etcd.stdout.replace("etcd grpc-proxy", "ringway grpc-proxy")


def test_bad_flags_of_the_group():
    for arguments in [["--bogus"], ["--bogus", "start"], ["--endpoints"]]:
        etcd, ringway = both(*arguments)
        assert etcd.returncode == ringway.returncode == 1
        assert ringway.stdout == etcd.stdout == ""
        assert ringway.stderr.splitlines()[0] == etcd.stderr.splitlines()[0]
        assert ringway.stderr.splitlines()[-1] == etcd.stderr.splitlines()[-1]


def test_flags_before_start():
    etcd, ringway = both("--resolver-prefix=p", "start", "--resolver-ttl=0", "more", "words")
    assert etcd.returncode == ringway.returncode == 1
    assert ringway.stderr.splitlines()[0] == etcd.stderr.strip() == "invalid resolver-ttl 0"


def test_under_the_name_etcd(tmp_path):
    link = tmp_path / "etcd"
    link.symlink_to(program.BINARY)
    for arguments in [[], ["-h"]]:
        etcd, ringway = [program.run("grpc-proxy", *arguments, program=name) for name in ["etcd", str(link)]]
        assert (ringway.returncode, ringway.stdout, ringway.stderr) == (0, etcd.stdout, "")
    assert "  etcd grpc-proxy start [flags]\n" in program.run("grpc-proxy", "start", "-h", program=str(link)).stdout


def test_check():
    port = free_port()
    with socket.socket() as taken:
        # Nothing is bound and nothing is looked up.
        taken.bind(("127.0.0.1", port))
        good = program.run(
            "check", "grpc-proxy", "start", "--listen-addr", f"127.0.0.1:{port}", "--endpoints",
            "https://no.such.host.invalid:2379,unix:/no/such", "--cert-file=c", "--key-file=k", "--namespace=a/",
            "--namespace-strict", "--metrics-addr=https://127.0.0.1:9379")
    assert good.returncode == 0
    assert good.stdout == "The command line is valid.\n"
    assert good.stderr == ""
    for bad in [["--resolver-ttl", "2"], ["--endpoints", "x"], ["--listen-addr", "x"], ["--threads", "-1"],
                ["--balance", "weighted"], ["--endpoint-weights", "1"], ["--metrics-addr", "https://x:1"],
                ["--upstream-timeout", "0"], ["--health-interval", "1ms"], ["--namespace-strict"],
                ["--balance", "random"], ["--endpoints-auto-sync-interval", "-1s"], ["--namespace", b"\xff"]]:
        result = program.run("check", "grpc-proxy", "start", *bad)
        assert result.returncode == 1, bad
        assert result.stderr and result.stdout == ""
    assert program.run("check", "grpc-proxy").returncode == 1
