"""A gRPC client of plain sockets: many streams at little cost, and no will of its own."""

import struct

from support import net
from support.calls import serialise
from support.fake_etcd import (
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RESET, SETTINGS, field, frame)

CANCEL = 8


class RawClient:
    def __init__(self, address):
        self.socket = net.connect(address)
        self.next = 1
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0))

    def call(self, path, message, ends=False):
        """The frames of a call, and its stream; `send` them."""
        stream, self.next = self.next, self.next + 2
        body = serialise(message)
        head = (b"\x83\x86" + field(b":path", path.encode()) + field(b":authority", b"etcd")
                + field(b"content-type", b"application/grpc") + field(b"te", b"trailers"))
        data = b"\0" + struct.pack(">I", len(body)) + body
        end = END_STREAM if ends else 0
        return frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, end, stream, data), stream

    def cancel(self, stream):
        return frame(RESET, 0, stream, struct.pack(">I", CANCEL))

    def send(self, *frames):
        self.socket.sendall(b"".join(frames))

    def frames(self):
        """What comes until the end: kind, flags, stream, payload."""
        while len(header := net.read_exactly(self.socket, 9)) == 9:
            length = int.from_bytes(header[:3], "big")
            stream = int.from_bytes(header[5:], "big")
            yield header[3], header[4], stream, net.read_exactly(self.socket, length)

    def wait_for_data(self, count=1):
        """Until so many streams have got a message."""
        streams = set()
        for kind, _, stream, _ in self.frames():
            assert kind != GOAWAY
            if kind == DATA:
                streams.add(stream)
            if len(streams) >= count:
                return
        raise AssertionError(f"the end came after {len(streams)} of {count} answers")

    def reset(self):
        net.reset(self.socket)

    def close(self):
        self.socket.close()
