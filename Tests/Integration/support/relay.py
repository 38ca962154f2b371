"""A TCP relay before an etcd that cuts, stalls and refuses when the test says so."""

import contextlib
import socket
import threading

from support import net
from support.peers import Server


class Pair:
    """A connection on both sides of the relay."""

    def __init__(self, client, server):
        self.client = client
        self.server = server
        self.is_cut = False


class Relay(Server):
    def __init__(self, target):
        self.target = target
        self.flowing = threading.Event()
        self.flowing.set()
        self.refusing = False
        self.pairs = []
        super().__init__()

    def serve(self, client):
        if self.refusing:
            return net.reset(client)
        try:
            server = net.connect(self.target)
        except OSError:
            return net.reset(client)
        for end in client, server:
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = Pair(client, server)
        self.pairs.append(pair)
        back = threading.Thread(target=self.pump, args=(pair, server, client), daemon=True)
        back.start()
        self.pump(pair, client, server)
        back.join()
        self.pairs.remove(pair)
        self.connections.remove(client)
        net.reset(client) if pair.is_cut else client.close()
        server.close()

    def pump(self, pair, source, destination):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.flowing.wait()
                destination.sendall(data)
        with contextlib.suppress(OSError):
            source.shutdown(socket.SHUT_RD)
        with contextlib.suppress(OSError):
            destination.shutdown(socket.SHUT_RD if pair.is_cut else socket.SHUT_RDWR)

    # Faults

    def cut(self):
        """Every connection is reset, in the middle of whatever it carries."""
        for pair in list(self.pairs):
            pair.is_cut = True
            for end in pair.client, pair.server:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RD)

    def end(self):
        """Every connection is closed in order."""
        for pair in list(self.pairs):
            with contextlib.suppress(OSError):
                pair.server.shutdown(socket.SHUT_RDWR)

    def stall(self):
        """Connections stay, new ones come up, nothing passes."""
        self.flowing.clear()

    def inject(self, data=b"\0" * 64):
        """Something that is no HTTP/2 comes from etcd."""
        for pair in list(self.pairs):
            with contextlib.suppress(OSError):
                pair.client.sendall(data)

    def refuse(self):
        """A process that is gone."""
        self.refusing = True
        self.cut()

    def heal(self):
        self.refusing = False
        self.flowing.set()
