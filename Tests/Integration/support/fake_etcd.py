"""A gRPC server of plain sockets that misbehaves on demand.

It decodes no header fields: the same answer is a range, a put and a status with a leader to whoever asked."""

import contextlib
import struct
import threading

from support import net
from support.peers import Server

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACKNOWLEDGEMENT = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_STREAMS = 3
NO_ERROR, INTERNAL_ERROR, REFUSED_STREAM = 0, 2, 7


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def field(name, value):
    """A header field that goes into no table."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


HEAD = b"\x88" + field(b"content-type", b"application/grpc")
# Field 4: of a RangeResponse the count, of a StatusResponse the leader, unknown in a PutResponse.
MESSAGE = b"\0" + struct.pack(">I", 2) + b"\x20\x01"


class FakeConnection:
    """One connection to a FakeEtcd; the script writes with these."""

    def __init__(self, server, socket):
        self.server = server
        self.socket = socket
        self.streams = set()

    def write(self, *frames):
        self.socket.sendall(b"".join(frames))

    def answer(self, stream, message=MESSAGE):
        self.streams.discard(stream)
        self.write(frame(HEADERS, END_HEADERS, stream, HEAD), frame(DATA, 0, stream, message),
                   self.trailers(stream))

    def trailers(self, stream, code=0, text=b""):
        fields = field(b"grpc-status", b"%d" % code) + (field(b"grpc-message", text) if text else b"")
        return frame(HEADERS, END_HEADERS | END_STREAM, stream, fields)

    def refuse(self, stream, code, text):
        """Trailers without an answer."""
        self.streams.discard(stream)
        fields = HEAD + field(b"grpc-status", b"%d" % code) + field(b"grpc-message", text)
        self.write(frame(HEADERS, END_HEADERS | END_STREAM, stream, fields))

    def half_answer(self, stream):
        self.write(frame(HEADERS, END_HEADERS, stream, HEAD), frame(DATA, 0, stream, MESSAGE[:4]))

    def reset_stream(self, stream, code):
        self.write(frame(RESET, 0, stream, struct.pack(">I", code)))

    def go_away(self, last, code=NO_ERROR):
        self.write(frame(GOAWAY, 0, 0, struct.pack(">II", last, code)))

    def garbage(self):
        self.write(frame(HEADERS, END_HEADERS, 0, b"?" * 20))

    def close(self):
        self.socket.close()

    def reset(self):
        net.reset(self.socket)


def answering(connection, stream):
    connection.answer(stream)


class FakeEtcd(Server):
    """Answers every call, unless `script(connection, stream)` does otherwise.

    `greeting` is what a connection begins with in place of SETTINGS; after b"" the server is silent."""

    def __init__(self, script=answering, greeting=None, max_streams=None, address="127.0.0.1:0"):
        self.script = script
        settings = struct.pack(">HI", MAX_STREAMS, max_streams) if max_streams else b""
        self.greeting = frame(SETTINGS, 0, 0, settings) if greeting is None else greeting
        self.calls = 0
        self.most_open = 0
        self.resets = 0
        self.lock = threading.Lock()
        super().__init__(address=address)

    def serve(self, socket):
        connection = FakeConnection(self, socket)
        if net.read_exactly(socket, len(PREFACE)) != PREFACE:
            return
        if self.greeting is not None:
            socket.sendall(self.greeting)
        with contextlib.suppress(OSError, ValueError):
            while header := net.read_exactly(socket, 9):
                length, kind, flags = int.from_bytes(header[:3], "big"), header[3], header[4]
                stream = int.from_bytes(header[5:], "big") & 0x7FFFFFFF
                self.take(connection, kind, flags, stream, net.read_exactly(socket, length))
        socket.close()

    def take(self, connection, kind, flags, stream, payload):
        if kind == SETTINGS and not flags & ACKNOWLEDGEMENT and self.greeting:
            connection.write(frame(SETTINGS, ACKNOWLEDGEMENT, 0))
        elif kind == PING and not flags & ACKNOWLEDGEMENT:
            connection.write(frame(PING, ACKNOWLEDGEMENT, 0, payload))
        elif kind == HEADERS:
            connection.streams.add(stream)
            self.most_open = max(self.most_open, len(connection.streams))
        elif kind == RESET:
            connection.streams.discard(stream)
            self.resets += 1
        elif kind == DATA and stream in connection.streams and payload:
            with self.lock:
                self.calls += 1
            self.script(connection, stream)


class Once:
    """Does `fault` to the first call that comes to anybody who shares this, and answers all others."""

    def __init__(self, fault):
        self.fault = fault
        self.lock = threading.Lock()
        self.done = 0

    def __call__(self, connection, stream):
        with self.lock:
            first = not self.done
            self.done += 1
        if first:
            self.fault(connection, stream)
        else:
            connection.answer(stream)
