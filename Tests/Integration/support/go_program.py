"""Programs in Go on etcd's own library."""

import os
import subprocess

import pytest

from support import net
from support.gateway import ROOT

# Where Debian's golang-etcd-server-dev puts its sources.
SOURCES = "/usr/share/gocode"

needs_go = pytest.mark.skipif(
    not net.installed("go") or not os.path.isdir(f"{SOURCES}/src/go.etcd.io/etcd/clientv3"),
    reason="Go or etcd's client for it is missing: apt-get install golang-go golang-etcd-server-dev")


def go(folder, *arguments):
    """Runs a command of Go in a folder below go/. Go keeps what it compiled for the next time."""
    made = ROOT / ".build" / "go"
    made.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": SOURCES, "GOCACHE": str(made / "cache"),
                   "CGO_ENABLED": "0"}
    result = subprocess.run(
        ["go", *arguments], cwd=ROOT / "Tests" / "Integration" / "go" / folder, env=environment,
        capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def compiled(folder, name):
    """The program in a folder below go/."""
    program = ROOT / ".build" / "go" / name
    go(folder, "build", "-o", str(program), ".")
    return program
