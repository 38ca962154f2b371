"""A server of Watch streams that do what the test says, at the moment it says so."""

import contextlib
import queue
import threading
from concurrent import futures

import grpc

from support.schema import METHODS, build

HEADER = {"cluster_id": 1, "member_id": 2, "revision": 10, "raft_term": 3}


class FakeStream:
    """One Watch stream: each create is answered; everything else is up to the test."""

    def __init__(self):
        self.out = queue.SimpleQueue()
        self.created = {}       # id -> what was asked for

    def say(self, **fields):
        self.out.put(build(METHODS["Watch/Watch"].response, {"header": HEADER, **fields}))

    def event(self, key, revision):
        """To every watch of the key."""
        for identifier, create in self.created.items():
            if create.key == key:
                self.say(header={**HEADER, "revision": revision}, watch_id=identifier, events=[{"kv": {"key": key, "mod_revision": revision}}])

    def end(self, code, text):
        self.out.put((code, text))


class FakeWatches:
    """Says that it is a healthy etcd, and gives each Watch stream to the test."""

    def __init__(self):
        self.streams = queue.SimpleQueue()
        self.all = []
        self.server = grpc.server(futures.ThreadPoolExecutor(32))
        self.server.add_generic_rpc_handlers([self])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.address = f"127.0.0.1:{self.port}"

    def service(self, details):
        name = next((name for name, method in METHODS.items() if method.path == details.method), None)
        if name is None:
            return None
        method = METHODS[name]
        coding = {"request_deserializer": method.request.FromString,
                  "response_serializer": method.response.SerializeToString}
        if name == "Watch/Watch":
            return grpc.stream_stream_rpc_method_handler(self.watch, **coding)
        fields = {"header": HEADER}
        if name == "Maintenance/Status":
            fields |= {"version": "3.5.16", "leader": 2}
        return grpc.unary_unary_rpc_method_handler(lambda *_: build(method.response, fields), **coding)

    def watch(self, requests, context):
        stream = FakeStream()
        self.all.append(stream)
        self.streams.put(stream)

        def read():
            with contextlib.suppress(Exception):  # the library's own at the end of a call
                yield from requests

        def listen():
            for request in read():
                if request.HasField("create_request"):
                    create = request.create_request
                    stream.created[create.watch_id] = create
                    stream.say(watch_id=create.watch_id, created=True)

        threading.Thread(target=listen, daemon=True).start()
        while not isinstance(answer := stream.out.get(), tuple):
            yield answer
        context.abort(*answer)

    def close(self):
        """No thread may be left that waits for the test."""
        for stream in self.all:
            stream.end(grpc.StatusCode.UNAVAILABLE, "the fake is closed")
        self.server.stop(None)


def unread(port):
    """Bytes that have come to this machine's sockets with this port at one of their ends, and have not been read."""
    total = 0
    with open("/proc/net/tcp", encoding="ascii") as table:
        for line in table.readlines()[1:]:
            _, here, there, _, queues = line.split()[:5]
            if f":{port:04X}" in (here[-5:], there[-5:]):
                total += int(queues.split(":")[1], 16)
    return total
