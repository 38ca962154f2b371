"""The watch checker (go/watchcheck) through the proxy, while members are killed, stopped, cut off and lose the lead.

RINGWAY_DELIVERIES says how many events are to be delivered; with it there is no limit of time."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import threading

import pytest

from conformance.places import RELEASES
from support.call_load import request
from support.calls import Client
from support.etcds import Cluster
from support.go_program import compiled, go, needs_go
from support.islands import Islands
from support.upstream import IS_NONE, Front
from test_proxy_faults import Members

DELIVERIES = int(os.environ.get("RINGWAY_DELIVERIES", "0"))
SEED = int(os.environ.get("RINGWAY_SEED", "1"))
FAULTS = ["kill", "stop", "cut off", "move the lead"]

pytestmark = [needs_go, pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("iptables"), reason="needs root, iproute2 and iptables")]


@pytest.fixture(scope="module")
def checker():
    return compiled("watchcheck", "watchcheck")


@pytest.fixture(scope="module")
def members(memory):
    """Three members, each on an island of its own; 3.5 if it is there, for 3.4 has faults of its own."""
    islands = Islands(3)
    folder = memory / "checked"
    folder.mkdir()
    is_new = pathlib.Path(RELEASES["3.5"][0]).exists()
    cluster = Cluster(
        folder, [(island.address, island.launcher) for island in islands.all],
        extra=["--heartbeat-interval", "50", "--election-timeout", "500",
               "--experimental-watch-progress-notify-interval", "300ms"],
        program=RELEASES["3.5" if is_new else "3.4"][0])
    made = Members(cluster, islands, Client)
    made.is_new = is_new
    yield made
    for client in made.clients:
        client.close()
    cluster.end()
    islands.close()


class Faults(threading.Thread):
    """One fault after the other, until told to stop; then all is well."""

    def __init__(self, members):
        super().__init__(daemon=True)
        self.members, self.chance = members, random.Random(SEED)
        self.stopped = threading.Event()
        self.count = 0
        self.problem = None

    def run(self):
        try:
            while not self.stopped.wait(0.3 + self.chance.random()):
                self.one(self.chance.choice(FAULTS))
                self.count += 1
        except Exception as error:  # the test looks at it
            self.problem = repr(error)

    def one(self, fault):
        members = self.members
        # The leader, and all in turn: one of them is in use.
        index = members.leader() if self.count % 2 else self.count // 2 % 3
        if fault == "move the lead":
            leader = members.leader()
            other = members.ids[(leader + 1) % 3]
            members.clients[leader].unary("Maintenance/MoveLeader", request("Maintenance/MoveLeader", targetID=other))
            return
        members.fail(index, fault)
        try:
            self.stopped.wait(0.3 + 1.5 * self.chance.random())
        finally:
            members.mend(index, fault)
        members.cluster.wait_until_healthy()

    def end(self):
        self.stopped.set()
        self.join(60)
        assert not self.is_alive() and not self.problem, self.problem


def test_the_checker_itself():
    go("check", "test", ".")


@pytest.mark.parametrize("tiers", [1, pytest.param(2, marks=pytest.mark.skipif(IS_NONE, reason="no proxy"))])
def test_nothing_is_lost(members, checker, tiers):
    members.cluster.wait_until_healthy()
    fronts = [Front(members.cluster.endpoints)]
    if tiers == 2:
        fronts.append(Front(fronts[0].address))
    command = [
        checker, "-endpoints", fronts[-1].address, "-direct", members.cluster.endpoints, "-seed", str(SEED), "-wait",
        "-deliveries", str(DELIVERIES or 300_000), "-limit", "2h" if DELIVERIES else "20s",
        f"-requested-progress={str(members.is_new).lower()}", *(["-connections", "60", "-rate", "0"] if DELIVERIES else [])]
    faults = Faults(members)
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        faults.start()
        # Other lines are the library's complaints of members that do not answer.
        while (line := process.stderr.readline()) and line != "calm\n":
            pass
        faults.end()
        members.cluster.wait_until_healthy()
        out, _ = process.communicate("\n", timeout=180)
        print(f"{faults.count} faults: {out}", file=sys.stderr)
        report = json.loads(out)
        assert not report["violations"], json.dumps(report, indent=1)
        assert report["counts"]["Deliveries"] >= (DELIVERIES or 20_000)
    finally:
        faults.stopped.set()
        process.kill()
        process.wait()
        for front in reversed(fronts):
            front.close()
