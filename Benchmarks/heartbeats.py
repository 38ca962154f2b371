"""Clients that keep leases alive: streams of LeaseKeepAlive, each with leases of its own, over one connection."""

import json
import select
import socket
import struct
import time
import urllib.request

TTL = 6
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


def head():
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/etcdserverpb.Lease/LeaseKeepAlive"),
              (b":authority", b"bench"), (b"content-type", b"application/grpc"), (b"te", b"trailers")]
    # Literals that no table remembers (RFC 7541, 6.2.2).
    return b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields)


def message(lease):
    body = b"\x08" + varint(lease)
    return b"\0" + struct.pack(">I", len(body)) + body


def grant(address, count):
    """Leases granted through etcd's JSON gateway."""
    made = []
    for _ in range(count):
        request = urllib.request.Request(f"http://{address}/v3/lease/grant", json.dumps({"TTL": TTL * 100}).encode())
        with urllib.request.urlopen(request, timeout=5) as answer:
            made.append(int(json.load(answer)["ID"]))
    return made


class Clients:
    """One connection with a stream for each group of leases."""

    def __init__(self, address, groups):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), 5)
        self.held = b""
        self.answers = self.beats = 0
        self.partial = {2 * number + 1: b"" for number in range(len(groups))}
        self.bodies = {2 * number + 1: b"".join(map(message, leases)) for number, leases in enumerate(groups)}
        self.counts = {2 * number + 1: len(leases) for number, leases in enumerate(groups)}
        settings = struct.pack(">HI", 4, WIDE)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings) +
                            frame(WINDOW, 0, 0, struct.pack(">I", WIDE)))
        self.socket.sendall(b"".join(frame(HEADERS, 4, stream, head()) for stream in self.bodies))

    def close(self):
        self.socket.close()

    def beat(self, stream):
        body = self.bodies[stream]
        self.socket.sendall(b"".join(frame(DATA, 0, stream, body[at:at + 16384]) for at in range(0, len(body), 16384)))
        self.beats += self.counts[stream]

    def read(self, seconds):
        if not select.select([self.socket], [], [], max(0, seconds))[0]:
            return
        self.held += self.socket.recv(1 << 20)
        while len(self.held) >= 9:
            length, kind, flags = int.from_bytes(self.held[:3], "big"), self.held[3], self.held[4]
            if len(self.held) < 9 + length:
                return
            stream, payload = int.from_bytes(self.held[5:9], "big"), self.held[9:9 + length]
            self.held = self.held[9 + length:]
            if kind == DATA:
                self.count(stream, payload)
            elif kind in (SETTINGS, PING) and not flags & 1:
                self.socket.sendall(frame(kind, 1, 0, payload if kind == PING else b""))
            elif kind == GOAWAY or kind == HEADERS and flags & 1:
                raise RuntimeError("a stream of heartbeats was ended")

    def count(self, stream, payload):
        bytes_ = self.partial[stream] + payload
        while len(bytes_) >= 5 and len(bytes_) >= 5 + int.from_bytes(bytes_[1:5], "big"):
            bytes_ = bytes_[5 + int.from_bytes(bytes_[1:5], "big"):]
            self.answers += 1
        self.partial[stream] = bytes_

    def run(self, seconds):
        """Beats for every lease each INTERVAL, the streams one after the other."""
        pause = INTERVAL / len(self.bodies)
        due, end = time.monotonic(), time.monotonic() + seconds
        streams = list(self.bodies)
        number = 0
        while due < end:
            self.beat(streams[number % len(streams)])
            number += 1
            due += pause
            while time.monotonic() < due:
                self.read(due - time.monotonic())

    def settle(self):
        """Until every beat is answered, or nothing comes any more."""
        limit = time.monotonic() + TTL
        while self.answers < self.beats and time.monotonic() < limit:
            self.read(0.1)


def run(proxy, leases, streams, seconds):
    """CPU of the proxy a heartbeat."""
    groups = [leases[number::streams] for number in range(streams)]
    clients = Clients(proxy.address, groups)
    try:
        clients.run(INTERVAL)
        clients.settle()
        clients.answers = clients.beats = 0
        before = proxy.cpu()[0]
        clients.run(seconds)
        clients.settle()
        spent = proxy.cpu()[0] - before
    finally:
        clients.close()
    return {"cpu_us": spent / clients.beats * 1e6, "beats": clients.beats, "unanswered": clients.beats - clients.answers}
