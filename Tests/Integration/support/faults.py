"""A network namespace in which packets can be lost, and a load that notices every failure."""

import os
import subprocess
import threading
import time

from support import net


def _range(body):
    return (b"POST /v3/kv/range HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            % len(body)) + body


QUESTIONS = [
    b"GET /version HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n",
    _range(b'{"key":"YQ==","serializable":true}'),
]


class Namespace:
    """A namespace with its own address; what is sent to a port in it can be dropped without a word."""

    def __init__(self):
        number = os.getpid() % 10000
        self.name = f"rwtest{number}"
        near, far = f"rwa{number}", f"rwb{number}"
        net16 = f"10.213.{number % 250}"
        self.outside, self.inside = f"{net16}.1", f"{net16}.2"
        self.near = near
        self._run("ip", "netns", "add", self.name)
        self._run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", self.name)
        self._run("ip", "addr", "add", f"{self.outside}/30", "dev", near)
        self._run("ip", "link", "set", near, "up")
        self.launcher = ["ip", "netns", "exec", self.name]
        for command in [["addr", "add", f"{self.inside}/30", "dev", far], ["link", "set", far, "up"],
                        ["link", "set", "lo", "up"]]:
            self._run(*self.launcher, "ip", *command)

    def _run(self, *command):
        subprocess.run(command, check=True, capture_output=True)

    def drop(self, port):
        """From now on the port is a black hole, for old connections too."""
        self._run(*self.launcher, "iptables", "-A", "INPUT", "-p", "tcp", "--dport", str(port), "-j", "DROP")
        self._run(*self.launcher, "iptables", "-A", "OUTPUT", "-p", "tcp", "--sport", str(port), "-j", "DROP")

    def let_through(self):
        self._run(*self.launcher, "iptables", "-F")

    def close(self):
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self.near], check=False, capture_output=True)


class Request:
    """What became of one request."""

    def __init__(self, start, end, failure):
        self.start = start
        self.end = end
        self.failure = failure


class Load:
    """Threads that ask etcd one question a connection, again and again. Use with `with`."""

    def __init__(self, address, threads=4):
        self.address = address
        self.stopped = threading.Event()
        self.histories = [[] for _ in range(threads)]
        self.threads = [threading.Thread(target=self._run, args=(history,)) for history in self.histories]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def _run(self, history):
        while not self.stopped.wait(0.005):
            start, failure = time.monotonic(), None
            try:
                with net.connect(self.address, 10) as client:
                    client.sendall(QUESTIONS[len(history) % 2])
                    answer = net.read_to_end(client)
                    if not answer.startswith(b"HTTP/1.1 200 OK\r\n") or not answer.rstrip().endswith(b"}"):
                        failure = f"answer {answer[:100]!r}"
            except OSError as error:
                failure = repr(error)
            history.append(Request(start, time.monotonic(), failure))

    def more(self, count=40):
        """A check that is true once every thread has seen so many more successes than now."""
        marks = [len(history) for history in self.histories]

        def check():
            return all(sum(not request.failure for request in history[mark:]) >= count
                       for history, mark in zip(self.histories, marks))

        return check

    def failures(self, after=0.0):
        """What went wrong with requests that began after a moment."""
        return [(round(request.start - after, 3), request.failure) for history in self.histories
                for request in history if request.failure and request.start >= after]

    def longest_outage(self):
        """The longest time that a client was without an answer, from its question until it has one."""
        longest = 0
        for history in self.histories:
            began = None
            for request in list(history):
                began = request.start if began is None else began
                longest = max(longest, request.end - began)
                if not request.failure:
                    began = None
        return longest
