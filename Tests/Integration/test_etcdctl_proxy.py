"""etcdctl of each release through the gRPC proxy: every subcommand says what it says without."""

import os
import re
import subprocess
import threading

import pytest

from conformance.places import PASSWORDS, RELEASES, Places, Way
from support.etcds import Etcd
from support.waiting import until

# Each line: an etcdctl command line, or one with what it reads from stdin behind `<`.
SCRIPTS = {
    "put, get, del": [
        "put a 1", "put b 2", "put b 3 --prev-kv", "get a", "get a b --from-key",
        "get --prefix a --keys-only",
        "get a c --sort-by=VALUE --order=DESCEND --limit=1",
        "get --prefix '' --count-only --write-out=fields",
        "get a --consistency=s", "get a -w json", "get b --rev=1000000", "del a --prev-kv",
        "del --prefix ''"],
    "txn": [
        "put account 10", 'txn < value("account") = "10"\n\nput account 20\nget account\n\nput account 0\n\n',
        'txn < value("account") = "10"\n\nput account 20\n\nget account\n\n', "get account",
        'txn < mod("nothing") = "0"\nversion("account") > "1"\n\ndel account\n\n\n'],
    "lease": [
        "lease grant 1000", "lease revoke 1", "lease timetolive 1", "lease keep-alive --once 1"],
    "member": [
        "member list", "member remove 1", "member update 1 --peer-urls=http://127.0.0.1:1",
        "member promote 1"],
    "endpoint": ["endpoint health", "endpoint status -w fields", "endpoint hashkv"],
    "maintenance": ["alarm list", "alarm disarm", "defrag", "move-leader 1", "version"],
    "user and role": [
        "user add carol:secret", "user list", "role add guest", "role grant-permission guest readwrite a b",
        "role grant-permission guest read --prefix c", "role get guest", "role list",
        "user grant-role carol guest", "user get carol", "user get carol --detail",
        "user revoke-role carol guest",
        "user passwd carol --interactive=false < new\n", "role revoke-permission guest a b",
        "role delete guest",
        "user delete carol", "user get carol", "role get guest"],
    "auth": ["auth enable", "auth disable"],
}
AUTH_SCRIPTS = {
    "as root": ["put x 1", "get x", "user list", "auth status", "lease list", "endpoint health"],
}
MOVING = [
    (r"\b[0-9a-f]{15,16}\b", "ID"), (r"took = [^ \n]+", "took = T"), (r"127\.0\.0\.1:\d+", "ADDRESS"),
    (r'"(Revision|RaftIndex|RaftAppliedIndex|RaftTerm|DBSize\w*|Hash|CompactRevision)" : \d+', r'"\1" : N'),
    (r'"revision":\d+|"(create|mod)_revision":\d+', "REVISION"), (r"(ADDRESS[^\n]*), \d+$", r"\1, HASH"),
    (r"\d+\.\d+ ?(ms|s|µs)", "T"), (r"compacted revision \d+", "compacted revision N"),
    (r'"(ts|caller|target)":"?[^,"]+"?', "LOG"), (r"etcd-endpoints://\S+/", "TARGET/"), (r"^\{.*\}\n", ""),
]


class Ctl:
    """etcdctl of one release towards one address."""

    def __init__(self, place, address, user=None):
        self.place, self.address = place, address
        self.flags = ["--endpoints", f"{place.etcd.scheme}://{address}"]
        if place.tls:
            authority = place.authority
            self.flags += ["--cacert", authority.certificate(), "--cert", authority.certificate("anonymous"),
                           "--key", authority.key("anonymous")]
        if user:
            self.flags += ["--user", f"{user}:{PASSWORDS[user]}"]

    def command(self, *words):
        return [str(self.place.etcdctl), *self.flags, *words]

    def run(self, *words, stdin=None, seconds=60):
        return subprocess.run(
            self.command(*words), input=stdin, capture_output=True, text=True, timeout=seconds,
            env=ENVIRONMENT)

    def ok(self, *words, **options):
        result = self.run(*words, **options)
        assert result.returncode == 0, f"{words}: {result.stderr}"
        return result.stdout

    def start(self, *words, **options):
        return Following(subprocess.Popen(
            self.command(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=ENVIRONMENT, text=True, **options))

    def play(self, line):
        """Status and both outputs of a script's line, without what changes from time to time."""
        command, _, stdin = line.partition(" < ")
        words = [word.strip("'") for word in command.split(" ")]
        result = self.run(*words, stdin=stdin)
        outputs = []
        for text in [result.stdout, result.stderr]:
            for pattern, replacement in MOVING:
                text = re.sub(pattern, replacement, text, flags=re.M)
            outputs.append(text)
        return command, result.returncode, *outputs


ENVIRONMENT = {**os.environ, "ETCDCTL_API": "3"}


class Following:
    """A command that goes on; `lines` has what it said so far."""

    def __init__(self, process):
        self.process, self.lines = process, []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def wait_for(self, text, count=1):
        until(lambda: sum(text in line for line in self.lines) >= count, what=f"{text!r} in {self.lines}")

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()


@pytest.fixture(scope="module")
def places(authority):
    made = Places(authority)
    yield made
    made.close()


@pytest.fixture(scope="module", params=RELEASES)
def way(request, places):
    made = Way(places.place(request.param), None)
    yield made
    made.close()


@pytest.fixture(scope="module", autouse=True)
def performance(places):
    """`check perf` takes a minute whatever its load, so it runs beside the other tests, on another etcd."""
    way = Way(places.place("3.5", tls=True), None)
    check = Ctl(way.place, address(way)).start("check", "perf", "--load=s")
    yield check
    check.end()
    way.close()


def address(way):
    return way.proxy.address if way.proxy else way.place.etcd.client


@pytest.fixture
def ctl(way):
    made = Ctl(way.place, address(way))
    made.ok("del", "--prefix", "")
    return made


@pytest.mark.parametrize("name", SCRIPTS)
def test_same_output(way, ctl, name):
    direct = Ctl(way.place, way.place.etcd.client)
    expected = [direct.play(line) for line in SCRIPTS[name]]
    direct.ok("del", "--prefix", "")
    assert [ctl.play(line) for line in SCRIPTS[name]] == expected


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_same_output_with_authentication(places, release, tls):
    way = Way(places.place(release, tls, auth=True), None)
    try:
        script = AUTH_SCRIPTS["as root"]
        expected = [Ctl(way.place, way.place.etcd.client, "root").play(line) for line in script]
        assert [Ctl(way.place, address(way), "root").play(line) for line in script] == expected
        refused = Ctl(way.place, address(way), "alice")
        assert "permission denied" in refused.run("put", "x", "1").stderr
        assert refused.ok("put", "a/x", "1") == "OK\n"
    finally:
        way.close()


def test_interactive_watch(ctl):
    watch = ctl.start("watch", "-i")
    try:
        watch.say("watch a")
        watch.say("watch --prefix b --prev-kv")

        def both_are_there():
            ctl.ok("put", "a", "0")
            ctl.ok("put", "b1", "0")
            return {"a", "b1"} <= set(watch.lines)

        until(both_are_there)
        ctl.ok("put", "a", "last")
        ctl.ok("put", "b2", "last")
        watch.wait_for("last", 2)
    finally:
        watch.end()


def revision(ctl):
    return int(re.search(r'"Revision" : (\d+)', ctl.ok("get", "x", "-w", "fields"))[1])


def test_compaction(ctl):
    for value in "123":
        ctl.ok("put", "x", value)
    last = revision(ctl)
    assert ctl.ok("compaction", str(last)) == f"compacted revision {last}\n"
    for words in [["compaction", str(last)], ["get", "x", f"--rev={last - 1}"]]:
        assert "required revision has been compacted" in ctl.run(*words).stderr
    assert ctl.ok("get", "x", f"--rev={last}") == "x\n3\n"


def test_watch_of_history(ctl):
    first = revision(ctl)
    for number in range(5):
        ctl.ok("put", "x", str(number))
    watch = ctl.start("watch", "x", f"--rev={first + 1}")
    try:
        watch.wait_for("4")
        assert [line for line in watch.lines if line.isdigit()] == ["0", "1", "2", "3", "4"]
    finally:
        watch.end()


def test_lease_keep_alive(ctl):
    lease = ctl.ok("lease", "grant", "2").split()[1]
    ctl.ok("put", "--lease", lease, "k", "v")
    assert "k" in ctl.ok("lease", "timetolive", "--keys", lease)
    assert lease in ctl.ok("lease", "list")
    beating = ctl.start("lease", "keep-alive", lease)
    try:
        beating.wait_for("keepalived with TTL(2)", 5)
        assert ctl.ok("get", "k") == "k\nv\n"
    finally:
        beating.end()
    until(lambda: ctl.ok("get", "k") == "", what="the end of the lease")


def test_lock(ctl):
    first = ctl.start("lock", "mutex")
    first.wait_for("mutex/")
    second = ctl.start("lock", "mutex")
    try:
        until(lambda: ctl.ok("get", "--prefix", "mutex/", "--keys-only").count("mutex/") == 2)
        assert second.lines == []
        first.process.terminate()
        second.wait_for("mutex/")
        assert ctl.run("lock", "other", "true").returncode == 0
        assert ctl.run("lock", "other", "false").returncode != 0
    finally:
        first.end()
        second.end()


def test_elect(ctl):
    leader = ctl.start("elect", "chair", "one")
    leader.wait_for("chair/")
    listener = ctl.start("elect", "--listen", "chair")
    other = ctl.start("elect", "chair", "two")
    try:
        listener.wait_for("one")
        until(lambda: ctl.ok("get", "--prefix", "chair/", "--keys-only").count("chair/") == 2)
        leader.process.terminate()
        other.wait_for("two")
        listener.wait_for("two")
    finally:
        for following in [leader, listener, other]:
            following.end()


def test_snapshot(ctl, tmp_path):
    ctl.ok("put", "k", stdin="v" * 1_000_000)
    ctl.ok("snapshot", "save", str(tmp_path / "saved"))
    assert len(ctl.ok("snapshot", "status", str(tmp_path / "saved")).split(",")) == 4


def test_make_mirror(ctl, tmp_path):
    other = Etcd("mirror", tmp_path, program=ctl.place.program)
    other.start()
    until(other.is_healthy, 40, "the mirror", pause=0.05)
    for number in range(10):
        ctl.ok("put", f"m{number}", "v")
    mirror = ctl.start("make-mirror", "--prefix", "m", other.client)
    there = [str(ctl.place.etcdctl), "--endpoints", other.client, "get", "--prefix", "m", "--keys-only"]

    def arrived():
        text = subprocess.run(there, capture_output=True, text=True, env=ENVIRONMENT, check=True).stdout
        return "m9" in text and "later" in text

    try:
        until(lambda: ctl.ok("put", "m-later", "v") and arrived())
    finally:
        mirror.end()
        other.end()


def test_learner_is_added_and_removed(ctl):
    added = ctl.ok("member", "add", "later", "--learner", "--peer-urls=http://127.0.0.1:1")
    number = re.search(r"Member +([0-9a-f]+) added", added)[1]
    assert number in ctl.ok("member", "list")
    assert "can only promote a learner member which is in sync" in ctl.run("member", "promote", number).stderr
    assert "updated" in ctl.ok("member", "update", number, "--peer-urls=http://127.0.0.1:2")
    assert "removed" in ctl.ok("member", "remove", number)


def test_commands_of_3_5(way, ctl):
    if ctl.place.version < (3, 5):
        pytest.skip("not in this release")
    direct = Ctl(way.place, way.place.etcd.client)
    for line in ["auth status", "downgrade validate 3.4.0", "downgrade validate 2.0.0", "downgrade cancel"]:
        assert ctl.play(line) == direct.play(line)


def test_data_scale(ctl):
    """How much memory etcd takes for it is not the point; that the check gets through is."""
    result = ctl.run("check", "datascale", "--load=s")
    assert result.returncode == 0 and "FAIL: ERROR" not in result.stdout, result


def test_performance(performance):
    """The last test of the file: how fast it was depends on the machine, but no request may have failed."""
    performance.process.wait(90)
    performance.reader.join()
    text = "\n".join(performance.lines)
    assert "Throughput" in text and "ERROR" not in text, text
