"""A DNS server whose answers the test sets."""

import socket
import struct
import threading

TYPES = {"A": 1, "AAAA": 28, "SRV": 33}


def encode_name(name):
    labels = [label.encode() for label in name.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def encode_data(kind, value):
    if kind == "A":
        return socket.inet_aton(value)
    if kind == "AAAA":
        return socket.inet_pton(socket.AF_INET6, value)
    priority, weight, port, target = value
    return struct.pack(">HHH", priority, weight, port) + encode_name(target)


class DNSServer:
    """Answers over UDP. `mode` is `answer`, `fail` (SERVFAIL) or `silent`."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        self.records = {}
        self.questions = []
        self.mode = "answer"
        threading.Thread(target=self._run, daemon=True).start()

    def set(self, name, kind, values, ttl=60):
        """Replaces the records of a name; without values the name no longer has any."""
        key = name.lower().rstrip("."), TYPES[kind]
        self.records[key] = [(ttl, encode_data(kind, value)) for value in values]

    def _run(self):
        while True:
            try:
                data, client = self.socket.recvfrom(4096)
            except OSError:
                return
            reply = self._answer(data)
            if reply:
                self.socket.sendto(reply, client)

    def _answer(self, data):
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1:at + 1 + data[at]].decode())
            at += 1 + data[at]
        question = data[12:at + 5]
        kind, = struct.unpack(">H", data[at + 1:at + 3])
        name = ".".join(labels).lower()
        self.questions.append((name, kind))
        if self.mode == "silent":
            return None
        found = self.records.get((name, kind), [])
        exists = any(known == name and records for (known, _), records in self.records.items())
        status = 2 if self.mode == "fail" else 0 if exists else 3
        answers = [] if status else found
        head = data[:2] + struct.pack(">HHHHH", 0x8580 | status, 1, len(answers), 0, 0)
        body = b"".join(
            b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, ttl, len(record)) + record for ttl, record in answers)
        return head + question + body

    def close(self):
        self.socket.close()
