"""Many streams of heartbeats at little cost."""

import struct

from support.fake_etcd import ACKNOWLEDGEMENT, DATA, PING, SETTINGS, WINDOW, frame
from support.grpc_calls import request
from support.raw_client import RawClient
from support.schema import METHODS

INITIAL_WINDOW = 4
KEEP_ALIVE = METHODS["Lease/LeaseKeepAlive"]


def beat(lease):
    return request("Lease/LeaseKeepAlive", ID=lease)


def messages(leases):
    bodies = [beat(lease).SerializeToString() for lease in leases]
    return b"".join(b"\0" + struct.pack(">I", len(body)) + body for body in bodies)


class Beater(RawClient):
    """A connection with many streams of heartbeats."""

    def __init__(self, address):
        super().__init__(address)
        self.streams = []
        # It reads all it gets, so the windows are as large as they can be.
        self.send(frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, 1 << 30)),
                  frame(WINDOW, 0, 0, struct.pack(">I", 1 << 30)))

    def open(self, leases):
        frames, stream = self.call(KEEP_ALIVE.path, beat(leases[0]))
        self.streams.append((stream, leases))
        self.send(frames, frame(DATA, 0, stream, messages(leases[1:])))

    def beat(self):
        """Once more on all streams."""
        self.send(*(frame(DATA, 0, stream, messages(leases)) for stream, leases in self.streams))

    def check(self):
        """Each stream gets its answers, in the order of its requests; returns the TTLs."""
        left = {stream: list(leases) for stream, leases in self.streams}
        bytes_ = dict.fromkeys(left, b"")
        lives = {}
        for kind, flags, stream, payload in self.frames():
            if kind == PING and not flags & ACKNOWLEDGEMENT:
                self.send(frame(PING, ACKNOWLEDGEMENT, 0, payload))
            if kind != DATA:
                continue
            bytes_[stream] += payload
            while len(bytes_[stream]) >= 5:
                size = 5 + int.from_bytes(bytes_[stream][1:5], "big")
                if len(bytes_[stream]) < size:
                    break
                answer = KEEP_ALIVE.response.FromString(bytes_[stream][5:size])
                bytes_[stream] = bytes_[stream][size:]
                assert answer.ID == left[stream].pop(0)
                assert answer.header.cluster_id and answer.header.revision
                lives[answer.ID] = answer.TTL
            if not any(left.values()):
                return lives
        raise AssertionError("the end came before the answers")
