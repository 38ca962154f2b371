"""`grpc-proxy start` as a process: ours, or etcd's with RINGWAY_PROXY=etcd (or the path of an etcd)."""

import os

from support import net
from support.gateway import BINARY, Gateway

PROGRAM = os.environ.get("RINGWAY_PROXY", BINARY)
IS_OURS = "RINGWAY_PROXY" not in os.environ


class GrpcProxy(Gateway):
    """Like Gateway. Listens on a port chosen here, for etcd's proxy cannot say which it got;
    with `own_advertised` that is what it advertises."""

    word = "grpc-proxy"

    def __init__(self, *arguments, ready=True, program=PROGRAM, own_advertised=False, **options):
        self.listens_on = f"127.0.0.1:{net.free_port()}"
        if own_advertised:
            arguments = [*arguments, "--advertise-client-url", self.listens_on]
        arguments = ["--listen-addr", self.listens_on, *arguments]
        super().__init__(*arguments, ready=False, program=program, **options)
        if ready:
            self.wait_for("started gRPC proxy")

    @property
    def address(self):
        return self.listens_on
