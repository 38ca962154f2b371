"""HTTP/2 by hand, for what no decent client sends. Header fields go out as plain literals and are not read."""

import struct

from support.net import connect, read_exactly

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INITIAL_WINDOW = 4
PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 1, 3, 5, 6
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11
RANGE = "/etcdserverpb.KV/Range"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def field(name, value):
    """A literal that is not indexed (RFC 7541 section 6.2.2)."""
    def text(bytes_):
        size = len(bytes_)
        if size < 127:
            return bytes([size]) + bytes_
        encoded, rest = b"\x7f", size - 127
        while rest >= 128:
            encoded += bytes([rest % 128 + 128])
            rest //= 128
        return encoded + bytes([rest]) + bytes_

    return b"\x00" + text(name.encode()) + text(value.encode())


def head(path=RANGE, *more):
    """The header block of a call."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"),
              ("content-type", "application/grpc"), ("te", "trailers"), *more]
    return b"".join(field(name, value) for name, value in fields)


def message(payload):
    return struct.pack(">BI", 0, len(payload)) + payload


def call(stream, payload, path=RANGE):
    """A whole unary call."""
    return (frame(HEADERS, END_HEADERS, stream, head(path))
            + frame(DATA, END_STREAM, stream, message(payload)))


class RawClient:
    """A connection that has been greeted, or with `greets=False` is still to be."""

    def __init__(self, address, settings=(), greets=True, timeout=20):
        self.socket = connect(address, timeout)
        if greets:
            pairs = b"".join(struct.pack(">HI", name, value) for name, value in settings)
            self.send(PREFACE + frame(SETTINGS, 0, 0, pairs))

    def send(self, data):
        self.socket.sendall(data)

    def push(self, data):
        """Sends as much as the proxy wants to have."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def read(self):
        """Kind, flags, stream and payload of the next frame; None at the end of the connection."""
        try:
            start = read_exactly(self.socket, 9)
            if len(start) < 9:
                return None
            size = int.from_bytes(start[:3], "big")
            payload = read_exactly(self.socket, size)
            return start[3], start[4], int.from_bytes(start[5:], "big"), payload
        except (ConnectionResetError, BrokenPipeError):
            return None

    def read_until(self, wanted):
        """The first frame of which `wanted(kind, flags, stream)` holds; None at the end of the connection."""
        while (found := self.read()) is not None:
            if wanted(*found[:3]):
                return found
        return None

    def goodbye(self):
        """The code of the GOAWAY that ended the connection; None if it just ended."""
        code = None
        while (found := self.read()) is not None:
            if found[0] == GOAWAY:
                code = struct.unpack(">I", found[3][4:8])[0]
        return code

    def reset_code(self, stream):
        """The code of the RST_STREAM for a stream."""
        found = self.read_until(lambda kind, _, number: kind == RST_STREAM and number == stream)
        return found and struct.unpack(">I", found[3])[0]

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
