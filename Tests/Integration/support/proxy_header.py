"""The PROXY protocol by its specification, independent of the program's own reader and writer."""

import socket
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def line(source, destination):
    """Version 1, for two (host, port) pairs."""
    family = "TCP6" if ":" in source[0] else "TCP4"
    return f"PROXY {family} {source[0]} {destination[0]} {source[1]} {destination[1]}\r\n".encode()


def block(source, destination, extra=b""):
    """Version 2 with TLVs behind the addresses."""
    six = ":" in source[0]
    family = socket.AF_INET6 if six else socket.AF_INET
    addresses = socket.inet_pton(family, source[0]) + socket.inet_pton(family, destination[0])
    body = addresses + struct.pack(">HH", source[1], destination[1]) + extra
    return SIGNATURE + bytes([0x21, 0x21 if six else 0x11]) + struct.pack(">H", len(body)) + body


LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


def parse(data):
    """Source, destination and what follows the header; strict."""
    if data.startswith(b"PROXY "):
        head, separator, rest = data.partition(b"\r\n")
        assert separator and len(head) <= 105
        words = head.decode("ascii").split(" ")
        assert len(words) == 6, words
        assert words[1] == ("TCP6" if ":" in words[2] else "TCP4")
        return (words[2], int(words[4])), (words[3], int(words[5])), rest
    assert data.startswith(SIGNATURE), data[:20]
    assert data[12] == 0x21
    length, = struct.unpack(">H", data[14:16])
    body, rest = data[16:16 + length], data[16 + length:]
    family, size = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}[data[13]]
    assert length == 2 * size + 4
    source, destination = (socket.inet_ntop(family, body[at:at + size]) for at in (0, size))
    ports = struct.unpack(">HH", body[2 * size:])
    return (source, ports[0]), (destination, ports[1]), rest
