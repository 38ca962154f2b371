"""The program under test as a process."""

import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import urllib.error
import urllib.request

from support import net
from support.waiting import PATIENCE, Stopwatch, until

ROOT = pathlib.Path(__file__).resolve().parents[3]
BINARY = os.environ.get("RINGWAY", str(ROOT / ".build" / "release" / "ringway"))
READY = "ready to proxy client requests"


def run(*arguments, program=BINARY, seconds=30, **options):
    """Runs the program to its end; returns status and both outputs."""
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=seconds, **options)


class Gateway:
    """A running `gateway start`. Log lines are collected as they come; `lines` has them as dictionaries."""

    word = "gateway"

    def __init__(self, *arguments, launcher=(), env=None, program=BINARY, ready=True, **options):
        command = [*launcher, program, self.word, "start", *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **(env or {})},
            **options)
        self.pid = self.process.pid
        self.raw = []
        self.lines = []
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if ready:
            self.wait_for(READY)

    def _read(self):
        for raw in self.process.stderr:
            text = raw.decode().rstrip("\n")
            with self.changed:
                self.raw.append(text)
                try:
                    self.lines.append(json.loads(text))
                except ValueError:
                    self.lines.append({"msg": text, "not-json": True})
                self.changed.notify_all()
        with self.changed:
            self.raw.append(None)
            self.changed.notify_all()

    # Log

    def find(self, message, **fields):
        """The lines so far with this message and these fields."""
        return [line for line in list(self.lines) if line.get("msg") == message
                and all(line.get(key) == value for key, value in fields.items())]

    def wait_for(self, message, seconds=PATIENCE, count=1, **fields):
        """Waits until so many lines with this message have come; returns the last of them."""
        def ripe():
            return len(self.find(message, **fields)) >= count or None in self.raw

        with self.changed:
            self.changed.wait_for(ripe, seconds)
        found = self.find(message, **fields)
        assert len(found) >= count, f"no line {message!r} {fields}; log:\n{self.log}"
        return found[count - 1]

    @property
    def log(self):
        return "\n".join(line for line in self.raw if line is not None)

    # Addresses

    @property
    def addresses(self):
        """What it listens on."""
        return self.find("listening for client connections")[0]["addresses"]

    @property
    def address(self):
        return self.addresses[0]

    def connect(self, address=None, timeout=20):
        return net.connect(address or self.address, timeout)

    def ask(self, text=b"?", address=None, timeout=20):
        """One question on a connection of its own: the answer, or empty if the gateway ended it."""
        try:
            with self.connect(address, timeout) as client:
                client.sendall(text)
                return client.recv(1 << 16).decode()
        except (ConnectionResetError, BrokenPipeError):
            return ""

    # Metrics

    @property
    def metrics_url(self):
        return "http://" + self.find("listening for metrics")[0]["address"]

    def page(self, path):
        """Status and body of a page."""
        try:
            with urllib.request.urlopen(self.metrics_url + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name, **labels):
        """The value of one sample."""
        wanted = set(f'{key}="{value}"' for key, value in labels.items())
        for line in self.page("/metrics")[1].splitlines():
            match = re.fullmatch(r"([^{ ]+)(?:\{(.*)\})? (\S+)", line)
            if match and match[1] == name and wanted <= set((match[2] or "").split(",")):
                return float(match[3])
        raise AssertionError(f"no metric {name} {labels}")

    # The process

    @property
    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def private_bytes(self):
        """Memory that is this process's own."""
        text = pathlib.Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return 1024 * sum(int(number) for number in re.findall(r"^Private_\w+: +(\d+) kB", text, re.M))

    @property
    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def signal(self, number):
        self.process.send_signal(number)

    @property
    def has_ended(self):
        return self.process.poll() is not None

    def wait(self, seconds=PATIENCE):
        """Waits for its end and returns the exit status."""
        status = self.process.wait(seconds)
        self.reader.join(seconds)
        return status

    def end(self):
        """Ends it, in order if possible, and returns the exit status."""
        if not self.has_ended:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            watch = Stopwatch()
            try:
                until(lambda: self.has_ended or watch.seconds > 0.3, 1)
                if not self.has_ended:
                    self.signal(signal.SIGTERM)
                self.process.wait(PATIENCE)
            finally:
                if not self.has_ended:
                    self.process.kill()
                    self.process.wait()
        self.reader.join(PATIENCE)
        self.process.stdout.close()
        self.process.stderr.close()
        return self.process.returncode
