"""Short names for the calls that most tests of the proxy make."""

import pathlib

import grpc

from support.calls import Client
from support.schema import METHODS, build


def request(name, /, **fields):
    return build(METHODS[name].request, fields)


class Caller(Client):
    """A client whose calls have to succeed."""

    def ok(self, name, /, **fields):
        response, ended = self.unary(name, request(name, **fields), timeout=20)
        assert ended["code"] == "OK", f"{name}: {ended}"
        return response

    def code(self, name, /, **fields):
        """How a call ends."""
        return self.unary(name, request(name, **fields))[1]["code"]

    def put(self, key, value):
        return self.ok("KV/Put", key=key, value=value)

    def get(self, key):
        """The value, or None."""
        found = self.ok("KV/Range", key=key).kvs
        return found[0].value if found else None

    def watch(self, key, **fields):
        """A watch that etcd has confirmed."""
        stream = self.stream("Watch/Watch", request("Watch/Watch", create_request={"key": key, **fields}))
        assert stream.next().created
        return stream

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def credentials(authority, name=None):
    """Of a client that trusts the authority, with the certificate of that name if there is one."""
    def contents(path):
        return pathlib.Path(path).read_bytes()

    own = [contents(authority.key(name)), contents(authority.certificate(name))] if name else []
    return grpc.ssl_channel_credentials(contents(authority.certificate()), *own)
