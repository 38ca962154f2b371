"""The cache checker (go/cachecheck): clients of two proxies and of etcd itself write and read the same keys, leases end.

RINGWAY_SECONDS says for how long, of each of the runs."""

import itertools
import json
import os
import subprocess
import sys

import pytest

from support.go_program import compiled, go, needs_go
from support.upstream import IS_NONE, Front

SECONDS = int(os.environ.get("RINGWAY_SECONDS", "6"))
SEED = int(os.environ.get("RINGWAY_SEED", "1"))

pytestmark = needs_go
seeds = itertools.count(SEED)


@pytest.fixture(scope="module")
def checker():
    return compiled("cachecheck", "cachecheck")


def check(checker, etcd, *more):
    fronts = [Front(etcd.client) for _ in range(2)]
    try:
        result = subprocess.run(
            [checker, "-endpoints", ",".join(front.address for front in fronts), "-direct", etcd.client,
             "-for", f"{SECONDS}s", "-seed", str(next(seeds)), *more],
            capture_output=True, text=True, timeout=3 * SECONDS + 60)
        print(result.stdout, file=sys.stderr)
        assert result.stdout, result.stderr
        report = json.loads(result.stdout)
        assert not report["violations"], json.dumps(report, indent=1)
        assert report["operations"]["serializable read"] > 100 * SECONDS
        # What etcd itself does at any time.
        if IS_NONE:
            assert report["stalest_ms"] == 0 and not report["tolerated"]
    finally:
        for front in fronts:
            front.close()


def test_the_checker_itself():
    go("linear", "test", ".")


def test_reads(setting, checker):
    check(checker, setting.etcd)


def test_reads_of_users(auth_place, checker):
    """One of them may read nothing, and asks for what the other reads all the time."""
    check(checker, auth_place.etcd, "-user", "root:toor", "-stranger", "bob:builder")
