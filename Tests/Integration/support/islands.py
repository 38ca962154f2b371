"""Network namespaces on one bridge: each member of a cluster on an island that can be cut off."""

import os
import subprocess


class Island:
    def __init__(self, bridge, number, subnet):
        self.name = f"{bridge}n{number}"
        self.near, self.far = f"{bridge}a{number}", f"{bridge}b{number}"
        self.address = f"{subnet}.{10 + number}"
        self.launcher = ["ip", "netns", "exec", self.name]
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self.near, "type", "veth", "peer", "name", self.far, "netns", self.name)
        run("ip", "link", "set", self.near, "master", bridge, "up")
        for command in [["addr", "add", f"{self.address}/24", "dev", self.far], ["link", "set", self.far, "up"],
                        ["link", "set", "lo", "up"]]:
            run(*self.launcher, "ip", *command)

    def cut_off(self):
        """What is sent to or from the island is lost without a word; its own processes still see each other."""
        for chain, side in [("INPUT", "-i"), ("OUTPUT", "-o")]:
            run(*self.launcher, "iptables", "-A", chain, side, self.far, "-j", "DROP")

    def rejoin(self):
        run(*self.launcher, "iptables", "-F")


class Islands:
    def __init__(self, count):
        number = os.getpid() % 10000
        self.bridge = f"rwi{number}"
        subnet = f"10.214.{number % 250}"
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "addr", "add", f"{subnet}.1/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        self.all = [Island(self.bridge, index, subnet) for index in range(count)]

    def close(self):
        for island in self.all:
            subprocess.run(["ip", "netns", "del", island.name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)


def run(*command):
    subprocess.run(command, check=True, capture_output=True)
