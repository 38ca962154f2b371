"""Bytes and ends of streams: what one side does reaches the other side unchanged."""

import hashlib
import os
import random
import socket
import threading

import pytest

from support import net
from support.waiting import until

MB = 1 << 20


def pair(gateway, peers, *arguments, **options):
    """A gateway, the client's end of a connection through it and the server's end.

    No health checks: the first connection that the server sees is the client's."""
    server = peers.server()
    made = gateway("--endpoints", server.address, "--health-check", "off", *arguments, **options)
    client = peers.keep(made.connect())
    far = server.connection()
    far.settimeout(20)
    return made, client, far


def test_client_half_closes_first(gateway, peers):
    _, client, far = pair(gateway, peers)
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert net.read_to_end(far) == b"question"
    far.sendall(b"answer, after the end of the question")
    far.close()
    assert net.read_to_end(client) == b"answer, after the end of the question"


def test_server_half_closes_first(gateway, peers):
    _, client, far = pair(gateway, peers)
    far.sendall(b"greeting")
    far.shutdown(socket.SHUT_WR)
    assert net.read_to_end(client) == b"greeting"
    client.sendall(b"x" * MB)
    client.shutdown(socket.SHUT_WR)
    assert net.read_to_end(far) == b"x" * MB


def test_end_without_any_byte(gateway, peers):
    _, client, far = pair(gateway, peers)
    client.close()
    assert net.read_to_end(far) == b""


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 65536, 8 * MB])
def test_bytes_in_flight_when_the_server_closes(gateway, peers, size):
    """The server is gone long before the client has read what it sent."""
    data = random.Random(size).randbytes(size)
    made, client, far = pair(gateway, peers)
    sender = threading.Thread(target=lambda: (far.sendall(data), far.close()))
    sender.start()
    until(lambda: client.recv(1, socket.MSG_PEEK))
    if size <= 65536:
        sender.join()
    assert net.read_to_end(client) == data
    sender.join()


def test_bytes_in_flight_when_the_client_closes(gateway, peers):
    data = os.urandom(4 * MB)
    _, client, far = pair(gateway, peers)
    sender = threading.Thread(target=lambda: (client.sendall(data), client.close()))
    sender.start()
    assert hashlib.sha256(net.read_to_end(far)).digest() == hashlib.sha256(data).digest()
    sender.join()


def test_client_reset_reaches_the_server(gateway, peers):
    made, client, far = pair(gateway, peers)
    client.sendall(b"x")
    assert far.recv(1) == b"x"
    net.reset(client)
    assert net.is_reset(far)


def test_server_reset_reaches_the_client(gateway, peers):
    made, client, far = pair(gateway, peers)
    client.sendall(b"x")
    assert far.recv(1) == b"x"
    net.reset(far)
    assert net.is_reset(client)


def test_server_reset_reaches_a_client_that_is_sending(gateway, peers):
    """The reset ends both directions; whichever notices it first, the client must not see an end in order."""
    server = peers.server()
    made = gateway("--endpoints", server.address, "--health-check", "off")
    for number in range(30):
        client = peers.keep(made.connect())
        far = server.connection(number)
        failures = []

        def send():
            try:
                while True:
                    client.sendall(b"x" * 65536)
            except OSError as error:
                failures.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        net.read_exactly(far, 300_000)
        net.reset(far)
        sender.join(15)
        assert [type(failure) for failure in failures] == [ConnectionResetError], f"connection {number}"


def test_client_reset_reaches_a_server_that_is_sending(gateway, peers):
    server = peers.server()
    made = gateway("--endpoints", server.address, "--health-check", "off")
    for number in range(30):
        client = made.connect()
        far = server.connection(number)
        failures = []

        def send():
            try:
                while True:
                    far.sendall(b"x" * 65536)
            except OSError as error:
                failures.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        net.read_exactly(client, 300_000)
        net.reset(client)
        sender.join(15)
        assert [type(failure) for failure in failures] == [ConnectionResetError], f"connection {number}"


def test_reset_after_half_close_reaches_the_other_side(gateway, peers):
    """The question is complete; the server breaks while it answers: the answer must not look complete."""
    _, client, far = pair(gateway, peers)
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert net.read_to_end(far) == b"question"
    far.sendall(b"the first half of the ans")
    net.reset(far)
    assert net.is_reset(client)


def test_client_that_leaves_in_the_middle_of_a_download(gateway, peers):
    """A client that closes with bytes unread breaks the stream; the server must hear of it."""
    _, client, far = pair(gateway, peers)
    broken = threading.Event()

    def send_for_ever():
        try:
            while True:
                far.sendall(b"x" * 65536)
        except OSError:
            broken.set()

    threading.Thread(target=send_for_ever, daemon=True).start()
    net.read_exactly(client, MB)
    client.close()
    assert broken.wait(20)


def test_server_that_stops_reading_after_its_end(gateway, peers):
    """A connection that the server has closed for good is given up, once the client sends more."""
    made, client, far = pair(gateway, peers)
    far.close()
    assert client.recv(1) == b""

    def is_broken():
        try:
            client.send(b"x")
            return False
        except OSError:
            return True

    until(is_broken)


def test_urgent_small_messages_are_not_held_back(gateway, peers):
    """A message of one byte arrives without a second one behind it, 2,000 times each way."""
    server = peers.echo()
    made = gateway("--endpoints", server.address)
    with made.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(2000):
            message = bytes([number & 255])
            client.sendall(message)
            assert client.recv(1) == message


def test_a_stuck_peer_does_not_stop_others(gateway, peers):
    """Clients that never read what they asked for fill their own pipes and nothing else."""

    def serve(connection):
        command = connection.recv(1)
        if command == b"f":
            while True:
                connection.sendall(b"x" * 65536)
        while data := connection.recv(65536):
            connection.sendall(data)

    server = peers.server(serve)
    made = gateway("--endpoints", server.address, "--threads", "1")
    stuck = [peers.keep(made.connect()) for _ in range(40)]
    for client in stuck:
        client.sendall(b"f")
    for client in stuck:
        assert client.recv(1, socket.MSG_PEEK) == b"x"
    data = os.urandom(2 * MB)
    with made.connect() as client:
        client.sendall(b"e")
        threading.Thread(target=client.sendall, args=(data,), daemon=True).start()
        assert net.read_exactly(client, len(data)) == data
    assert made.private_bytes < 200 * MB
