"""Clients that keep leases alive: streams of LeaseKeepAlive, each with leases of its own, over one connection."""

import select
import socket
import struct
import time

TTL = 30
INTERVAL = TTL / 3
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 4, 6, 7, 8
WIDE = 1 << 30


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def head(method):
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/etcdserverpb.Lease/" + method),
              (b":authority", b"bench"), (b"content-type", b"application/grpc"), (b"te", b"trailers")]
    # Literals that no table remembers (RFC 7541, 6.2.2).
    return b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields)


def message(body):
    return b"\0" + struct.pack(">I", len(body)) + body


class Connection:
    def __init__(self, address):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), 5)
        self.held = b""
        settings = struct.pack(">HI", 4, WIDE)
        self.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(SETTINGS, 0, 0, settings),
                 frame(WINDOW, 0, 0, struct.pack(">I", WIDE)))

    def say(self, *parts):
        self.socket.sendall(b"".join(parts))

    def close(self):
        self.socket.close()

    def frames(self, seconds):
        """What comes within so many seconds, as (kind, flags, stream, payload)."""
        if not select.select([self.socket], [], [], max(0, seconds))[0]:
            return
        held = self.held + self.socket.recv(1 << 20)
        at = 0
        while len(held) - at >= 9 + int.from_bytes(held[at:at + 3], "big") and len(held) - at >= 9:
            length, kind, flags = int.from_bytes(held[at:at + 3], "big"), held[at + 3], held[at + 4]
            stream, payload = int.from_bytes(held[at + 5:at + 9], "big"), held[at + 9:at + 9 + length]
            at += 9 + length
            if kind in (SETTINGS, PING) and not flags & 1:
                self.say(frame(kind, 1, 0, payload if kind == PING else b""))
            elif kind == GOAWAY:
                raise RuntimeError("the connection was ended")
            else:
                yield kind, flags, stream, payload
        self.held = held[at:]


def grant(address, leases):
    connection = Connection(address)
    under_way = 0
    try:
        for number, lease in enumerate(leases):
            body = message(b"\x08" + varint(TTL) + b"\x10" + varint(lease))
            connection.say(frame(HEADERS, 4, 2 * number + 1, head(b"LeaseGrant")), frame(DATA, 1, 2 * number + 1, body))
            under_way += 1
            while under_way > (0 if number + 1 == len(leases) else 100):
                under_way -= sum(kind == HEADERS and flags & 1 for kind, flags, *_ in connection.frames(5))
    finally:
        connection.close()


class Clients:
    """One connection with a stream for each group of leases."""

    def __init__(self, address, groups):
        self.connection = Connection(address)
        self.answers = self.beats = 0
        self.groups = {2 * number + 1: leases for number, leases in enumerate(groups)}
        self.bodies = {stream: b"".join(message(b"\x08" + varint(lease)) for lease in leases)
                       for stream, leases in self.groups.items()}
        self.partial = dict.fromkeys(self.groups, b"")
        self.connection.say(*(frame(HEADERS, 4, stream, head(b"LeaseKeepAlive")) for stream in self.groups))

    def beat(self, stream):
        body = self.bodies[stream]
        self.connection.say(*(frame(DATA, 0, stream, body[at:at + 16384]) for at in range(0, len(body), 16384)))
        self.beats += len(self.groups[stream])

    def read(self, seconds):
        for kind, flags, stream, payload in self.connection.frames(seconds):
            if kind == DATA:
                self.count(stream, payload)
            elif kind == HEADERS and flags & 1:
                raise RuntimeError("a stream of heartbeats was ended")

    def count(self, stream, payload):
        held, at = self.partial[stream] + payload, 0
        while len(held) - at >= 5 and len(held) - at >= 5 + int.from_bytes(held[at + 1:at + 5], "big"):
            at += 5 + int.from_bytes(held[at + 1:at + 5], "big")
            self.answers += 1
        self.partial[stream] = held[at:]

    def run(self, seconds):
        """Beats for every lease each INTERVAL, the streams one after the other."""
        due, end = time.monotonic(), time.monotonic() + seconds
        streams = list(self.groups)
        number = 0
        while due < end:
            self.beat(streams[number % len(streams)])
            number += 1
            due += INTERVAL / len(streams)
            while time.monotonic() < due:
                self.read(due - time.monotonic())

    def settle(self):
        """Until every beat is answered, or nothing comes any more."""
        limit = time.monotonic() + INTERVAL
        while self.answers < self.beats and time.monotonic() < limit:
            self.read(0.1)


def run(proxy, etcd, count, streams, seconds):
    """CPU of the proxy a heartbeat."""
    first = time.time_ns() // 1000
    leases = range(first, first + count)
    grant(etcd.address, leases)
    clients = Clients(proxy.address, [leases[number::streams] for number in range(streams)])
    try:
        # The first heartbeats of all, from which on etcd's own proxy sends some by itself.
        clients.run(INTERVAL)
        clients.settle()
        clients.answers = clients.beats = 0
        before = proxy.cpu()[0]
        clients.run(seconds)
        clients.settle()
        spent = proxy.cpu()[0] - before
    finally:
        clients.connection.close()
    return {"cpu_us": spent / clients.beats * 1e6, "beats": clients.beats, "unanswered": clients.beats - clients.answers}
