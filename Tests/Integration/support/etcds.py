"""Real etcd servers, and etcdctl."""

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request

from support import net
from support.waiting import until


class Etcd:
    """One member. Its ports stay the same when it is started again."""

    def __init__(self, name, folder, *, host="127.0.0.1", cluster=None, extra=(), scheme="http", launcher=(),
                 program="etcd"):
        self.name = name
        self.folder = folder / name
        self.host = host
        self.client = f"{host}:{net.free_port()}"
        self.peer = f"{host}:{net.free_port()}"
        self.cluster = cluster
        self.extra = list(extra)
        self.scheme = scheme
        self.launcher = list(launcher)
        self.program = str(program)
        self.process = None

    def start(self, cluster=None):
        self.cluster = cluster or self.cluster or f"{self.name}=http://{self.peer}"
        url = f"{self.scheme}://{self.client}"
        command = [
            *self.launcher, self.program, "--name", self.name, "--data-dir", str(self.folder),
            "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", f"http://{self.peer}",
            "--initial-advertise-peer-urls", f"http://{self.peer}", "--initial-cluster", self.cluster,
            "--initial-cluster-state", "new", "--log-level", "error", "--logger", "zap", *self.extra]
        self.output = open(str(self.folder) + ".log", "ab")
        self.process = subprocess.Popen(command, stdout=self.output, stderr=self.output)

    def answers(self):
        """Whether the client port speaks, asked directly."""
        try:
            with urllib.request.urlopen(f"http://{self.client}/version", timeout=0.5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def is_healthy(self):
        try:
            with urllib.request.urlopen(f"http://{self.client}/health", timeout=2) as answer:
                return json.load(answer)["health"] == "true"
        except (OSError, ValueError):
            return False

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.output.close()

    def end(self):
        if self.process and self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.kill()


class Cluster:
    """Members that know each other; `hosts` has an address and a launcher for each."""

    def __init__(self, folder, hosts, extra=(), program="etcd"):
        self.members = [
            Etcd(f"m{index}", folder, host=host, launcher=launcher, extra=extra, program=program)
            for index, (host, launcher) in enumerate(hosts)]
        everyone = ",".join(f"{member.name}=http://{member.peer}" for member in self.members)
        for member in self.members:
            member.start(everyone)
        self.wait_until_healthy()

    def wait_until_healthy(self):
        for member in self.members:
            until(member.is_healthy, 40, f"health of {member.name}", pause=0.05)

    @property
    def endpoints(self):
        return ",".join(member.client for member in self.members)

    def end(self):
        for member in self.members:
            member.end()


def etcdctl(endpoint, *arguments, flags=(), stdin=None, seconds=20):
    """Runs etcdctl to its end; returns what it printed."""
    result = subprocess.run(
        ["etcdctl", "--endpoints", endpoint, *flags, *arguments], input=stdin, capture_output=True, text=True,
        timeout=seconds, env={**os.environ, "ETCDCTL_API": "3"})
    assert result.returncode == 0, result.stderr
    return result.stdout
