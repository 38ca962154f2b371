"""Where cases are played: an etcd of some kind, directly and through a proxy of some kind."""

import itertools
import pathlib
import re
import subprocess
import tempfile

import grpc

from support.calls import Client
from support.etcds import Etcd
from support.gateway import ROOT
from support.grpc_proxy import PROGRAM, GrpcProxy
from support.namespaced import Namespaced, prefix_end
from support.schema import METHODS, build
from support.waiting import until

NAMESPACE = b"tenant-1/"
PASSWORDS = {"root": "toor", "alice": "wonderland", "bob": "builder"}
# Cheap passwords, and short elections: the shortest lease is one and a half of their time-outs.
QUICK = ["--bcrypt-cost", "4", "--heartbeat-interval", "20", "--election-timeout", "200",
         "--experimental-watch-progress-notify-interval", "200ms"]
READ, WRITE, READ_WRITE = 0, 1, 2

RELEASES = {
    "3.4": ("etcd", "etcdctl"),
    "3.5": (ROOT / ".build/etcd-3.5/etcd", ROOT / ".build/etcd-3.5/etcdctl"),
}


def version_of(program):
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = re.search(r"etcd Version: (\d+)\.(\d+)", text).groups()
    return int(major), int(minor)


class Place:
    """An etcd with or without TLS, with or without authentication."""

    def __init__(self, release, tls, auth, authority, folder, extra=()):
        self.release, self.tls, self.auth, self.authority = release, tls, auth, authority
        self.program, self.etcdctl = RELEASES[release]
        self.version = version_of(self.program)
        secure = ["--cert-file", authority.certificate("member"), "--key-file", authority.key("member"),
                  "--trusted-ca-file", authority.certificate(), "--client-cert-auth"]
        self.etcd = Etcd(
            f"etcd-{release}", pathlib.Path(folder), program=self.program, scheme="https" if tls else "http",
            extra=[*QUICK, *extra, *(secure if tls else [])])
        self.etcd.start()
        self.tokens = {}
        self.direct = self.connect()
        until(lambda: self.direct.unary("KV/Range", self._request("KV/Range", key=b"a"))[0], 30, "etcd")
        if auth:
            self._enable_authentication()

    def connect(self, address=None, namespaced=None):
        return Client(address or self.etcd.client, self.credentials() if self.tls else None, namespaced)

    def credentials(self):
        """Client certificates name nobody: with authentication on, etcd would take the name for a user."""
        files = [self.authority.certificate(), self.authority.key("anonymous"),
                 self.authority.certificate("anonymous")]
        return grpc.ssl_channel_credentials(*[pathlib.Path(file).read_bytes() for file in files])

    def _request(self, name, /, **fields):
        return build(METHODS[name].request, fields)

    def do(self, name, /, **fields):
        """A call that has to succeed."""
        token = self.tokens.get("root")
        response, ended = self.direct.unary(
            name, self._request(name, **fields), metadata=[("token", token)] if token else [])
        assert ended["code"] == "OK", f"{name}: {ended}"
        return response

    def _enable_authentication(self):
        for user, password in PASSWORDS.items():
            self.do("Auth/UserAdd", name=user, password=password)
        for user, role in [("root", "root"), ("alice", "limited")]:
            self.do("Auth/RoleAdd", name=role)
            self.do("Auth/UserGrantRole", user=user, role=role)
        for prefix in [b"", NAMESPACE]:
            for kind, key in [(READ_WRITE, b"a/"), (READ, b"r/"), (WRITE, b"w/")]:
                key = prefix + key
                self.do("Auth/RoleGrantPermission", name="limited",
                        perm={"permType": kind, "key": key, "range_end": prefix_end(key)})
        self.do("Auth/AuthEnable")
        self.login()

    def login(self):
        """Fresh tokens for all users."""
        self.tokens.clear()
        for user, password in PASSWORDS.items():
            answer = self.do("Auth/Authenticate", name=user, password=password)
            self.tokens[user] = answer.token

    def proxy_flags(self):
        """What a proxy needs to reach this etcd, and to be reached in the same way."""
        url = f"{self.etcd.scheme}://{self.etcd.client}"
        # An empty advertised address: members are etcd's, and etcd's proxy does not call itself.
        flags = ["--endpoints", url, "--advertise-client-url", ""]
        if self.tls:
            anonymous = self.authority.certificate("anonymous"), self.authority.key("anonymous")
            flags += ["--cert", anonymous[0], "--key", anonymous[1], "--cacert", self.authority.certificate(),
                      "--cert-file", anonymous[0], "--key-file", anonymous[1],
                      "--trusted-ca-file", self.authority.certificate()]
        return flags

    def close(self):
        self.direct.close()
        self.etcd.end()


class Way:
    """A place, a proxy in front of it, and a client on each side."""

    def __init__(self, place, namespace):
        self.place, self.namespace = place, namespace
        self.start()
        self.direct = place.connect(namespaced=Namespaced(namespace) if namespace else None)

    def start(self):
        flags = self.place.proxy_flags()
        if self.namespace:
            flags += ["--namespace", self.namespace.decode()]
        if PROGRAM == "none":
            self.proxy = None
            self.through = self.place.connect(
                namespaced=Namespaced(self.namespace) if self.namespace else None)
        else:
            self.proxy = GrpcProxy(*flags)
            self.through = self.place.connect(self.proxy.address)

    def revive(self):
        """Whether the proxy had died; if so there is a new one."""
        died = self.proxy is not None and self.proxy.has_ended
        if died:
            self.through.close()
            self.proxy.end()
            self.start()
        return died

    def close(self):
        self.direct.close()
        self.through.close()
        if self.proxy:
            self.proxy.end()


class Places:
    """Makes each etcd once, and keeps one proxy at a time."""

    def __init__(self, authority):
        self.authority = authority
        authority.issue("anonymous", subject="/")
        # In memory where there is a place for that: etcd waits for the disk at every write.
        memory = pathlib.Path("/dev/shm")
        self.folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="ringway-")
        self.made = {}
        self.numbers = itertools.count()

    def place(self, release, tls=False, auth=False):
        key = release, tls, auth
        if key not in self.made:
            folder = pathlib.Path(self.folder.name) / str(next(self.numbers))
            folder.mkdir()
            self.made[key] = Place(release, tls, auth, self.authority, folder)
        return self.made[key]

    def close(self):
        for place in self.made.values():
            place.close()
        self.folder.cleanup()
