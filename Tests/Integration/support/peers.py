"""Servers that stand behind the gateway, one thread a connection."""

import contextlib
import os
import socket
import threading

from support import net


class Server:
    """Calls `serve(connection)` in a thread for each connection; `connections` keeps them in order."""

    def __init__(self, serve=None, address="127.0.0.1:0", backlog=1024):
        if serve is not None:
            self.serve = serve
        self.unix = address[5:] if address.startswith("unix:") else None
        if self.unix:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.bind(self.unix)
            self.address = address
        else:
            host, port = net.split(address)
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self.socket = socket.socket(family)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind((host, port))
            self.port = self.socket.getsockname()[1]
            self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.socket.listen(backlog)
        self.connections = []
        self.arrived = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with self.arrived:
                self.connections.append(connection)
                self.arrived.notify_all()
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection):
        with contextlib.suppress(OSError):
            self.serve(connection)

    def serve(self, connection):
        """Keeps the connection and does nothing: the test acts on it."""

    def connection(self, index=0, seconds=20):
        """The connection number `index`, as soon as it has come."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.connections) > index, seconds), "no connection came"
            return self.connections[index]

    def close(self):
        # Without the shutdown the accepting thread would keep the port alive.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        if self.unix:
            with contextlib.suppress(OSError):
                os.unlink(self.unix)


class EchoServer(Server):
    """Sends back what it gets, and its end after that."""

    def serve(self, connection):
        while data := connection.recv(1 << 16):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


class NameServer(Server):
    """Answers the first bytes with its own name, and keeps the connection until the client ends it."""

    def __init__(self, name, **options):
        self.name = name
        super().__init__(**options)

    def serve(self, connection):
        while connection.recv(1 << 16):
            connection.sendall(self.name.encode())
        connection.close()


class BlackHole:
    """An address that swallows connection requests: a listener whose queue is full answers none."""

    def __init__(self):
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(0)
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        self.fillers = []
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(self.socket.getsockname())
            self.fillers.append(filler)

    def close(self):
        for filler in [*self.fillers, self.socket]:
            filler.close()
