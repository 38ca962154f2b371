"""Small things about sockets."""

import random
import shutil
import socket
import struct


def free_port():
    """A port that is free on every address, outside the range the kernel hands out to clients by itself."""
    while True:
        port = random.randint(12000, 30000)
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                probe.bind(("::", port))
            return port
        except OSError:
            continue


def split(address):
    """`host:port` or `[v6]:port` as a pair."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def connect(address, timeout=20):
    """A connection to `host:port`, `[v6]:port` or `unix:/path`."""
    if address.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(timeout)
        client.connect(address[5:])
        return client
    return socket.create_connection(split(address), timeout)


def read_exactly(connection, count):
    """`count` bytes, or fewer if the stream ends before."""
    data = b""
    while len(data) < count:
        chunk = connection.recv(min(1 << 20, count - len(data)))
        if not chunk:
            break
        data += chunk
    return data


def read_to_end(connection):
    """Everything up to the end of the stream."""
    chunks = []
    while chunk := connection.recv(1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)


def reset(connection):
    """Closes with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def is_reset(connection):
    """Reads until the peer ends: True if that was by RST, False if it was in order."""
    try:
        while connection.recv(65536):
            pass
        return False
    except (ConnectionResetError, BrokenPipeError):
        return True


def installed(program):
    """Whether a program can be found."""
    return shutil.which(program) is not None
