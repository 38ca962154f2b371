"""gRPC calls and streams by their name in the proto files."""

import queue
import threading
import time

import grpc

from support.plain import status
from support.schema import METHODS

SECONDS = 5.0  # only what fails waits so long


def serialise(message):
    return message if isinstance(message, bytes) else message.SerializeToString()


class Client:
    """One channel. With `namespaced`, towards etcd itself, it acts as a client inside that namespace."""

    def __init__(self, address, credentials=None, namespaced=None):
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
                   # A channel of its own for every client, and no waiting after a failed connection.
                   ("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50),
                   ("grpc.min_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
        if credentials:
            self.channel = grpc.secure_channel(address, credentials, options)
        else:
            self.channel = grpc.insecure_channel(address, options)
        self.namespaced = namespaced

    def close(self):
        self.channel.close()

    def outgoing(self, name, request):
        if self.namespaced and not isinstance(request, bytes):
            request = self.namespaced.request(name, request)
        return request

    def incoming(self, name, response):
        if self.namespaced:
            self.namespaced.response(name, response)
        return response

    def unary(self, name, request, *, path=None, metadata=(), timeout=SECONDS, compression=None):
        """The response or None, and how the call ended."""
        method = METHODS[name]
        call = self.channel.unary_unary(
            path or method.path, request_serializer=serialise,
            response_deserializer=method.response.FromString)
        try:
            response, ended = call.with_call(
                self.outgoing(name, request), metadata=metadata, timeout=timeout, wait_for_ready=True,
                compression=compression)
            return self.incoming(name, response), status(ended)
        except grpc.RpcError as error:
            return None, status(error)

    def future(self, name, request, metadata=(), timeout=60.0):
        """A unary call that is not waited for."""
        method = METHODS[name]
        call = self.channel.unary_unary(
            method.path, request_serializer=serialise, response_deserializer=method.response.FromString)
        return call.future(self.outgoing(name, request), metadata=metadata, timeout=timeout, wait_for_ready=True)

    def stream(self, name, *requests, metadata=(), timeout=60.0, compression=None):
        """A stream that has sent these requests."""
        made = Stream(self, name)
        for request in requests:
            made.send(request)
        made.start(metadata, timeout, compression)
        return made


class Silence(Exception):
    """Nothing came for SECONDS."""


class Stream:
    END = object()

    def __init__(self, client, name):
        self.client = client
        self.name = name
        self.method = METHODS[name]
        self.requests = queue.SimpleQueue()
        self.responses = queue.SimpleQueue()
        self.ended = None

    def start(self, metadata, timeout, compression):
        channel, method = self.client.channel, self.method
        coding = {"request_serializer": serialise, "response_deserializer": method.response.FromString}
        options = {
            "metadata": metadata, "timeout": timeout, "wait_for_ready": True, "compression": compression}
        if method.streams_requests:
            requests = iter(self.requests.get, self.END)
            self.call = channel.stream_stream(method.path, **coding)(requests, **options)
        else:
            self.call = channel.unary_stream(method.path, **coding)(self.requests.get(), **options)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for response in self.call:
                self.responses.put(self.client.incoming(self.name, response))
            self.responses.put(self.END)
        except grpc.RpcError:
            self.responses.put(self.END)

    def send(self, request):
        self.requests.put(self.client.outgoing(self.name, request))

    def half_close(self):
        self.requests.put(self.END)

    def cancel(self):
        self.call.cancel()
        self.requests.put(self.END)

    def next(self, seconds=SECONDS):
        """The next response, or None at the end of the stream."""
        if self.ended:
            return None
        try:
            response = self.responses.get(timeout=seconds)
        except queue.Empty:
            raise Silence(f"nothing on {self.name} for {seconds} s") from None
        if response is self.END:
            self.ended = status(self.call)
            self.requests.put(self.END)
            return None
        return response

    def rest(self, seconds=SECONDS):
        """Everything up to the end."""
        deadline = time.monotonic() + seconds
        found = []
        while (response := self.next(max(0.01, deadline - time.monotonic()))) is not None:
            found.append(response)
        return found
