"""Under systemd: readiness, watchdog and sockets that were opened before the start."""

import os
import signal
import socket
import sys

import pytest

from support import net
from support import gateway as program
from support.waiting import until

# Does what systemd does between fork and exec: the socket becomes descriptor 3, LISTEN_PID the process.
LAUNCH = ("import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
          "os.execv(sys.argv[2], sys.argv[2:])")


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = path.replace("@", "\0", 1) if path.startswith("@") else path
        self.socket.bind(name)
        self.socket.settimeout(15)
        self.states = []

    def wait_for(self, state):
        while state not in self.states:
            self.states += self.socket.recv(4096).decode().split("\n")

    def close(self):
        self.socket.close()


@pytest.fixture(params=["file", "abstract"])
def manager(request, tmp_path):
    path = f"{tmp_path}/notify" if request.param == "file" else f"@ringway-test-{os.getpid()}"
    made = Manager(path)
    yield made
    made.close()


def test_ready_and_stopping(gateway, peers, manager):
    made = gateway("--endpoints", peers.named("behind").address, env={"NOTIFY_SOCKET": manager.path})
    manager.wait_for("READY=1")
    assert made.ask() == "behind"
    made.signal(signal.SIGTERM)
    manager.wait_for("STOPPING=1")
    assert made.wait() == 0


def test_reloading(gateway, peers, manager):
    made = gateway("--endpoints", peers.named("behind").address, env={"NOTIFY_SOCKET": manager.path})
    manager.wait_for("READY=1")
    manager.states.clear()
    made.signal(signal.SIGHUP)
    manager.wait_for("READY=1")
    assert "RELOADING=1" in manager.states
    assert any(state.startswith("MONOTONIC_USEC=") for state in manager.states)


def test_watchdog(gateway, peers, manager):
    gateway(
        "--endpoints", peers.named("behind").address,
        env={"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "3000000"})
    for _ in range(2):
        manager.states.clear()
        manager.wait_for("WATCHDOG=1")


def test_a_watchdog_of_another_process_is_not_fed(gateway, peers, tmp_path):
    manager = Manager(f"{tmp_path}/notify")
    made = gateway(
        "--endpoints", peers.named("behind").address,
        env={"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"})
    manager.wait_for("READY=1")
    manager.socket.settimeout(2.5)
    with pytest.raises(TimeoutError):
        manager.wait_for("WATCHDOG=1")
    assert made.ask() == "behind"
    manager.close()


def test_a_missing_manager_is_no_failure(gateway, peers, tmp_path):
    made = gateway("--endpoints", peers.named("behind").address, env={"NOTIFY_SOCKET": f"{tmp_path}/nobody"})
    assert made.ask() == "behind"


def listening(peers, tmp_path, kind):
    listener = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
    listener.bind(f"{tmp_path}/passed" if kind == "unix" else ("127.0.0.1", 0))
    listener.listen()
    name = listener.getsockname()
    return listener, f"unix:{name}" if kind == "unix" else "%s:%d" % name


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_socket_activation(gateway, peers, tmp_path, kind):
    listener, address = listening(peers, tmp_path, kind)
    # A client may be waiting before the program runs.
    early = peers.keep(net.connect(address))
    early.sendall(b"?")
    made = gateway(
        "--endpoints", peers.named("behind").address, "--listen-addr", "127.0.0.1:1",
        launcher=[sys.executable, "-c", LAUNCH, str(listener.fileno())], pass_fds=[listener.fileno()],
        env={"LISTEN_FDS": "1", "LISTEN_FDNAMES": "ringway"})
    assert early.recv(100) == b"behind"
    assert [made.ask(address=address) for _ in range(10)] == ["behind"] * 10
    # The socket belongs to the manager, which still has it after the end and keeps clients waiting in it.
    assert made.end() == 0
    assert kind != "unix" or os.path.exists(address[5:])
    late = peers.keep(net.connect(address))
    late.sendall(b"?")
    listener.close()


def test_sockets_for_another_process_are_left_alone(gateway, peers):
    made = gateway(
        "--endpoints", peers.named("behind").address, env={"LISTEN_FDS": "1", "LISTEN_PID": "1"})
    assert made.ask() == "behind"
    assert until(lambda: made.address.startswith("127.0.0.1:"))
