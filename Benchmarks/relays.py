"""The relays that are compared, and how each is started, watched and ended."""

import ctypes
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILT = ROOT / ".build" / "bench"
RINGWAY = ROOT / ".build" / "release" / "ringway"
SCRATCH = ROOT / "Benchmarks" / "results" / "scratch"
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
CPUCLOCK_SCHED = 2


# `option splice-auto` leaves it to HAProxy, and 2.6 never spliced here: these options make it.
SPLICE = "option splice-request\n    option splice-response"


def haproxy_config(name, listen, endpoint, option):
    text = (ROOT / "Benchmarks" / "peers" / "haproxy.cfg.in").read_text()
    words = {"LISTEN": listen, "ENDPOINT": endpoint, "OPTION": option}
    path = SCRATCH / f"{name}.cfg"
    path.write_text(re.sub("@([A-Z]+)@", lambda match: words[match[1]], text))
    return str(path)


def ringway(backend):
    return lambda listen, endpoint: [
        str(RINGWAY), "gateway", "start", f"--listen-addr={listen}", f"--endpoints={endpoint}",
        f"--io-backend={backend}"]


def etcd(listen, endpoint):
    return ["etcd", "gateway", "start", f"--listen-addr={listen}", f"--endpoints={endpoint}"]


def haproxy(name, option=""):
    return lambda listen, endpoint: [
        "haproxy", "-db", "-f", haproxy_config(name, listen, endpoint, option)]


def floor(name):
    return lambda listen, endpoint: [str(BUILT / name), listen, endpoint, "2"]


# name: (title, command line for listen and endpoint address, descriptors an idle connection takes)
# etcd's gateway is a Go program whose splice keeps a pipe for each direction while it waits.
PEERS = {
    "ringway": ("Ringway (io_uring)", ringway("io_uring"), 2),
    "ringway-epoll": ("Ringway (epoll)", ringway("epoll"), 2),
    "etcd": ("etcd gateway", etcd, 6),
    "haproxy": ("HAProxy", haproxy("haproxy"), 2),
    "haproxy-splice": ("HAProxy splice", haproxy("haproxy-splice", SPLICE), 2),
    "floor-copy": ("Floor, copy", floor("floor_copy"), 2),
    "floor-splice": ("Floor, splice", floor("floor_splice"), 2),
    "direct": ("No gateway", None, 0),
}


def missing(name):
    """Why a peer cannot run here, or None."""
    if name.startswith("ringway") and not RINGWAY.exists():
        return f"{RINGWAY.relative_to(ROOT)} is absent: run `swift build -c release` first"
    program = {"etcd": "etcd", "haproxy": "haproxy", "haproxy-splice": "haproxy"}.get(name)
    if program and not shutil.which(program):
        return f"{program} is not installed"
    return None


def end_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(arguments, **options):
    return subprocess.Popen(arguments, preexec_fn=end_with_parent, **options)


def end(process):
    """Ends one child, by its own id."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Sink:
    """The server behind every relay."""

    def __init__(self, cpu):
        command = [str(BUILT / "sink"), "127.0.0.1:0"] + ([str(cpu)] if cpu is not None else [])
        self.process = spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = f"127.0.0.1:{int(self.process.stdout.readline())}"

    def close(self):
        end(self.process)


class Relay:
    """One running relay, or the way straight to the server when the peer is `direct`."""

    def __init__(self, name, endpoint):
        self.name = name
        self.process = None
        self.address = endpoint
        command = PEERS[name][1]
        if command is None:
            return
        self.address = f"127.0.0.1:{free_port()}"
        with open(SCRATCH / f"{name}.log", "ab") as log:
            self.process = spawn(command(self.address, endpoint), stdin=subprocess.DEVNULL, stdout=log,
                                 stderr=log, cwd=SCRATCH)
        try:
            self.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def wait_until_ready(self):
        host, port = self.address.split(":")
        limit = time.monotonic() + 10
        while time.monotonic() < limit:
            if self.process.poll() is not None:
                break
            try:
                with socket.create_connection((host, int(port)), 1) as probe:
                    probe.sendall(b"Ex")
                    if probe.recv(1) == b"x":
                        return
            except OSError:
                pass
            time.sleep(0.02)
        raise RuntimeError(f"{self.name} did not get ready; see {SCRATCH / (self.name + '.log')}")

    def cpu(self):
        """CPU seconds of the process so far: (total, user, system). All threads count, also those of the
        kernel that work for io_uring and those that ended. The total is the scheduler's own sum in
        nanoseconds; user and system are the clock ticks of /proc/PID/stat."""
        if not self.process:
            return None
        total = time.clock_gettime((~self.process.pid << 3) | CPUCLOCK_SCHED)
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        tick = os.sysconf("SC_CLK_TCK")
        return total, int(fields[11]) / tick, int(fields[12]) / tick

    def memory(self):
        """Bytes of private dirty, anonymous and resident memory, and how many descriptors are open."""
        found = {"descriptors": len(os.listdir(f"/proc/{self.process.pid}/fd"))}
        for file in ("smaps_rollup", "status"):
            for line in pathlib.Path(f"/proc/{self.process.pid}/{file}").read_text().splitlines():
                match = re.match(r"(Private_Dirty|Pss_Anon|VmRSS):\s+(\d+) kB", line)
                if match:
                    found[match[1]] = int(match[2]) * 1024
        return found

    def close(self):
        if self.process:
            end(self.process)


def versions():
    """The first line each peer says about its version."""
    found = {}
    for name, command in {"etcd": ["etcd", "--version"], "haproxy": ["haproxy", "-v"],
                          "ringway": [str(RINGWAY), "--version"]}.items():
        try:
            out = subprocess.run(command, capture_output=True, text=True, timeout=5)
            found[name] = (out.stdout or out.stderr).strip().splitlines()[0]
        except (OSError, IndexError, subprocess.TimeoutExpired):
            found[name] = "absent"
    return found
