"""A program on etcd's own Go library, through one proxy and through two that it finds by itself."""

import subprocess

import pytest

from support.go_program import compiled, needs_go
from support.grpc_calls import Caller
from support.waiting import until

STEPS = ["put, get, delete", "errors", "txn", "watch", "watch from before", "lease", "lock", "election", "stm", "large",
         "sync"]

pytestmark = needs_go


@pytest.fixture(scope="session")
def go_client():
    return compiled(".", "client")


def run(program, *arguments):
    result = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=90)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()


@pytest.mark.parametrize("flags", [[], ["--namespace", "go-tenant/"]])
def test_through_one_proxy(proxy, etcd, go_client, flags):
    started = proxy("--advertise-client-url", "", *flags)
    members = [] if flags else ["-members", f"http://{etcd.client}"]
    assert run(go_client, "-endpoints", started.address, *members) == STEPS


def test_through_proxies_that_find_each_other(proxy, go_client):
    registering = ["--resolver-prefix", "go-proxies", "--resolver-ttl", "60"]
    first, second = (proxy(*registering, own_advertised=True) for _ in range(2))

    def are_known():
        with Caller(first.address) as caller:
            return len(caller.ok("Cluster/MemberList").members) == 2

    until(are_known, 15, "both proxies")
    known = f"{first.address},{second.address}"
    assert run(go_client, "-endpoints", first.address, "-members", known) == STEPS
