#!/usr/bin/env python3
"""Benchmark of watches: Ringway beside etcd's gRPC proxy, in front of one etcd, and beside the floor.

The peers take turns run by run. The floor is a program that makes the events itself and only sends them. Results go to
Benchmarks/results: watch.json and watch.md."""

import argparse
import contextlib
import json
import os
import pathlib
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import curve
import gateway
import proxy
import relays

RESULTS = relays.ROOT / "Benchmarks" / "results"
ETCD35 = relays.ROOT / ".build" / "etcd-3.5" / "etcd"
LOAD, FLOOR = relays.BUILT / "watch_load", relays.BUILT / "watch_floor"
SIZE = 256
WARM_UP = 5
REST = 5  # seconds between the last watcher and the look at memory

PEERS = {
    "ringway": ("Ringway", [str(relays.RINGWAY), "grpc-proxy", "start"]),
    "etcd-3.5": ("etcd 3.5", [str(ETCD35), "grpc-proxy", "start"]),
    "etcd-3.4": ("etcd 3.4", ["etcd", "grpc-proxy", "start"]),
    "floor": ("Floor", [str(FLOOR)]),
}
ALL = ("ringway", "etcd-3.5", "etcd-3.4", "floor")


class Scenario:
    """Watchers as connections x streams x watchers, events a second and how many (`fewer` with --quick); the targets are
    limits of Ringway's CPU, p99 of the added latency and memory: {figure: {peer or None for absolute: limit}}. `stuck` of the
    connections read nothing until all others have everything."""

    def __init__(self, title, shape, rate, events, fewer, targets, peers=ALL, quick=True, stuck=0):
        self.title, self.shape, self.rate, self.events, self.fewer = title, shape, rate, events, fewer
        self.targets, self.peers, self.quick, self.stuck = targets, peers, quick, stuck

    @property
    def watchers(self):
        return self.shape[0] * self.shape[1] * self.shape[2]


def growth(watchers):
    events = max(6, min(300, 1_500_000 // watchers))
    return Scenario(f"{watchers:,} watchers on 10 streams", (10, 1, watchers // 10), min(100, 300_000 / watchers), events,
                    max(6, events // 3), {}, quick=False)


OWN = {"cpu_us": {"floor": 1.25, "etcd-3.5": 0.25}, "bytes": {None: 6 * 1024}}
SCENARIOS = {
    "own1000": Scenario("1,000 connections of one watcher", (1000, 1, 1), 50, 250, 45, OWN),
    "own5000": Scenario("5,000 connections of one watcher", (5000, 1, 1), 6, 40, 12, OWN),
    "shared": Scenario("100 connections of 100 watchers", (100, 1, 100), 25, 150, 30,
                       {"cpu_us": {"etcd-3.5": 0.10}, "bytes": {None: 200}}),
    "latency": Scenario("1,000 watchers on 10 connections, 100 events/s", (10, 1, 100), 100, 1000, 150,
                        {"added_p99_us": {"etcd-3.5": 0.25}}),
    "many": Scenario("100,000 watchers on 100 connections", (100, 1, 1000), 3, 12, 6, {"bytes": {None: 200}}, quick=False),
    "million": Scenario("1,000,000 watchers on 100 connections", (100, 10, 1000), 0.5, 5, 3, {"bytes": {None: 200}},
                        ("ringway", "floor"), quick=False),
    "all-read": Scenario("1,000 watchers on 10 connections, 1,000 events/s", (10, 1, 100), 1000, 5000, 1000, {},
                         ("ringway",)),
    "one-stuck": Scenario("the same, and 1 of the 10 connections does not read", (10, 1, 100), 1000, 5000, 1000, {},
                          ("ringway",), stuck=1),
    **{f"growth{10 ** power}": growth(10 ** power) for power in range(1, 6)},
}


# Watchers of one key are one watcher at etcd, and nobody misses an event: the worst of all runs.
FOR_ALL = {"upstream_watchers": 1, "missing": 0, "disorder": 0}


class Peer(relays.Relay):
    """A running proxy or the floor; CPU time and memory as of a relay."""

    def __init__(self, name, endpoint):
        self.name = name
        self.address = f"127.0.0.1:{relays.free_port()}"
        arguments = [self.address] if name == "floor" else [
            f"--endpoints={endpoint}", f"--listen-addr={self.address}", f"--advertise-client-url={self.address}"]
        with open(relays.SCRATCH / f"watch-{name}.log", "ab") as log:
            self.process = relays.spawn(PEERS[name][1] + arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                        cwd=relays.SCRATCH)
        proxy.wait_for_port(self.address, self.process)
        time.sleep(0.3)


def upstream(etcd):
    """Watchers and watch streams that etcd has now."""
    with urllib.request.urlopen(f"http://{etcd.address}/metrics", timeout=5) as page:
        text = page.read().decode()
    return [int(float(re.search(rf"^etcd_debugging_mvcc_{name}_total (\S+)", text, re.M)[1]))
            for name in ("watcher", "watch_stream")]


def await_rest(etcd):
    """Until the watchers of the run before are gone."""
    limit = time.monotonic() + 3
    while upstream(etcd) != [0, 0] and time.monotonic() < limit:
        time.sleep(0.05)


def run(scenario, name, etcd, key, quick):
    connections, streams, watchers = scenario.shape
    await_rest(etcd)
    with contextlib.closing(Peer(name, etcd.address)) as peer:
        target = peer.address if name == "floor" else etcd.address
        before_upstream = upstream(etcd)
        before_memory = peer.memory()["VmRSS"]
        process = relays.spawn(
            [str(LOAD), "--addr", peer.address, "--etcd", target, "--key", key, "--connections", str(connections),
             "--streams", str(streams), "--watchers", str(watchers), "--size", str(SIZE), "--rate", str(scenario.rate),
             "--events", str(scenario.fewer if quick else scenario.events),
             "--warm-up", str(min(WARM_UP, 1 + scenario.fewer // 10)), "--stuck", str(scenario.stuck)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if process.stdout.readline() != "READY\n":
                raise RuntimeError("the watchers were not created")
            # What a proxy holds, not what it needed to get there: etcd's collector and Ringway's pools give the rest back.
            time.sleep(REST)
            memory = peer.memory()["VmRSS"]
            held = upstream(etcd)
            before = peer.cpu()[0]
            process.stdin.write("\n")
            process.stdin.flush()
            line = process.stdout.readline()
            grown = peer.memory()["VmRSS"] - memory
            if line == "STUCK\n":
                process.stdin.write("\n")
                process.stdin.flush()
                line = process.stdout.readline()
            spent = peer.cpu()[0] - before
            found = json.loads(line)
        finally:
            relays.end(process)
    found.update(cpu_s=spent, cpu_us=spent / max(found["deliveries"], 1) * 1e6,
                 bytes=(memory - before_memory) / scenario.watchers, memory=memory, grown_mib=grown / 2**20)
    if name != "floor":  # the client has a watcher of its own at etcd, too
        found.update(upstream_watchers=held[0] - before_upstream[0] - 1,
                     upstream_streams=held[1] - before_upstream[1] - 1,
                     added_p99_us=found["added"]["p99_us"], added_p50_us=found["added"]["p50_us"])
    return found


def middle(runs, key):
    return statistics.median(run[key] for run in runs)


def cell(runs, key, digits=2):
    return proxy.spread(runs, key, digits) if runs and key in runs[0] else "-"


FIGURES = {
    "cpu_us": ("CPU µs a delivery", 3), "p50_us": ("Put to delivery, p50 µs", 0), "p99_us": ("Put to delivery, p99 µs", 0),
    "added_p50_us": ("Later than etcd's own watch, p50 µs", 0), "added_p99_us": ("Later than etcd's own watch, p99 µs", 0),
    "bytes": ("Memory a watcher, bytes", 0), "upstream_watchers": ("Watchers at etcd", 0),
    "upstream_streams": ("Watch streams at etcd", 0), "missing": ("Events missing", 0),
    "disorder": ("Events out of order or twice", 0), "grown_mib": ("More memory after the events, MiB", 1), "seconds": ("Seconds from first Put to last delivery", 2),
    "create_seconds": ("Seconds until all watchers stood", 2),
}


def verdicts(data):
    lines = ["| Scenario | Figure | Ringway | Compared with | Limit | Verdict |", "|---|---|---|---|---|---|"]
    for name, peers in data["found"].items():
        if "ringway" not in peers:
            continue
        scenario, ours = SCENARIOS[name], peers.get("ringway")
        if not ours:
            lines.append(f"| {scenario.title} | | no run | | | **not met** |")
        for figure, limits in scenario.targets.items() if ours else ():
            for other, limit in limits.items():
                value, against = middle(ours, figure), "-"
                if other:
                    if not peers.get(other):
                        continue
                    theirs = middle(peers[other], figure)
                    against = f"{PEERS[other][0]}: {theirs:.{FIGURES[figure][1]}f}"
                    share = value / max(theirs, 1e-9)
                    text, word = f"≤ {limit} of it", f"{share:.2f}, {proxy.verdict(share, limit)}"
                else:
                    text, word = f"≤ {limit:,}", proxy.verdict(value, limit)
                lines.append(f"| {scenario.title} | {FIGURES[figure][0]} | {value:.{FIGURES[figure][1]}f} | {against} | "
                             f"{text} | {word} |")
    every = [run for peers in data["found"].values() for run in peers.get("ringway", ())]
    for figure, limit in FOR_ALL.items() if every else ():
        worst = max(run[figure] for run in every)
        lines.append(f"| all, the worst run | {FIGURES[figure][0]} | {worst} | - | ≤ {limit} | "
                     f"{proxy.verdict(worst, limit)} |")
    few, many = (data["found"].get(f"growth{number}", {}).get("ringway") for number in (10, 100_000))
    if few and many:
        share = middle(many, "cpu_us") / middle(few, "cpu_us")
        lines.append(f"| 100,000 watchers beside 10 | CPU µs a delivery | {middle(many, 'cpu_us'):.3f} | 10 watchers: "
                     f"{middle(few, 'cpu_us'):.3f} | ≤ 1 of it | {share:.3f}, {proxy.verdict(share, 1)} |")
    reading, stuck = (data["found"].get(name, {}).get("ringway") for name in ("all-read", "one-stuck"))
    if reading and stuck:
        share = middle(stuck, "p99_us") / middle(reading, "p99_us")
        lines.append(f"| 1 of 10 connections stuck beside none | p99 µs of the others | {middle(stuck, 'p99_us'):.0f} | all "
                     f"read: {middle(reading, 'p99_us'):.0f} | ≤ 1.1 of it | {share:.2f}, {proxy.verdict(share, 1.1)} |")
    fewer, more = (data["found"].get(name, {}).get("ringway") for name in ("many", "million"))
    if fewer and more:
        one = (middle(more, "bytes") * 1e6 - middle(fewer, "bytes") * 1e5) / 9e5
        lines.append(f"| from 100,000 to 1,000,000 watchers | Memory of one more, bytes | {one:.0f} | - | ≤ 200 | "
                     f"{proxy.verdict(one, 200)} |")
    return lines


def report(data):
    versions = "; ".join(f"{name}: {text}" for name, text in data["versions"].items())
    machine = data["machine"]
    lines = ["# Watch benchmark", "",
             f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['date']}, commit "
             f"{machine['commit']}; {versions}.", "",
             f"Events of {SIZE} B at a fixed rate. CPU is user and system time of the proxy's process, all threads, while "
             "the events are delivered. Medians [smallest to largest] of "
             f"{data['runs']} runs{', shortened (--quick)' if data['quick'] else ''}. The load, etcd and the proxy share "
             "the machine's cores.", "", *verdicts(data)]
    for name, peers in data["found"].items():
        scenario = SCENARIOS[name]
        present = [peer for peer in peers if peers[peer]]
        lines += ["", f"## {scenario.title}", "", f"{scenario.rate:g} events/s.", "",
                  "| | " + " | ".join(PEERS[peer][0] for peer in present) + " |", "|---|" + "---|" * len(present)]
        for figure, (title, digits) in FIGURES.items():
            lines.append(f"| {title} | " + " | ".join(cell(peers[peer], figure, digits) for peer in present) + " |")
    if data["failures"]:
        lines += ["", "## Failed runs", ""] + [f"- {failure}" for failure in data["failures"]]
    return "\n".join(lines) + "\n"


def version(program):
    out = subprocess.run([program, "--version"], capture_output=True, text=True)
    return out.stdout.splitlines()[0].rpartition(" ")[2]


def absent(name):
    program = PEERS[name][1][0]
    return not (shutil.which(program) or os.access(program, os.X_OK))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 shorter runs of the main scenarios, about a minute")
    parser.add_argument("--runs", type=int, help="runs of each peer and scenario, default 5")
    parser.add_argument("--only", help=f"scenarios, comma separated: {', '.join(SCENARIOS)}")
    parser.add_argument("--peers", help=f"peers, comma separated: {', '.join(PEERS)}")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    default = [name for name, scenario in SCENARIOS.items() if scenario.quick or not options.quick]
    scenarios = gateway.choose(options.only or ",".join(default), SCENARIOS, "scenario")
    # --quick compares with one release of etcd.
    peers = gateway.choose(options.peers or ",".join(name for name in PEERS if not options.quick or name != "etcd-3.4"),
                           PEERS, "peer")
    for name in [name for name in peers if absent(name)]:
        print(f"skips {name}: not installed")
        peers.remove(name)
    runs = options.runs or (2 if options.quick else 5)
    for folder in (options.results, relays.SCRATCH):
        folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["make", "-s", "-C", str(relays.ROOT / "Benchmarks")], check=True)
    found, failures, started = {}, [], time.monotonic()
    server = str(ETCD35) if ETCD35.exists() else "etcd"
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder, \
            contextlib.closing(proxy.Etcd(folder + "/etcd", server)) as etcd:
        for name in scenarios:
            scenario = SCENARIOS[name]
            taking_part = [peer for peer in peers if peer in scenario.peers]
            found[name] = {peer: [] for peer in taking_part}
            # What has only one way to turn out is not repeated.
            for number in range(1 if name == "million" or options.quick and name in ("own5000", "many") else runs):
                start = number % len(taking_part)
                for peer in taking_part[start:] + taking_part[:start]:
                    try:
                        found[name][peer].append(run(scenario, peer, etcd, f"watched/{name}", options.quick))
                    except (RuntimeError, OSError, ValueError) as error:
                        failures.append(f"{scenario.title}, {PEERS[peer][0]}: {error}")
                        print(failures[-1], file=sys.stderr)
            for peer, all_runs in found[name].items():
                print(f"{scenario.title}: {PEERS[peer][0]}: CPU {cell(all_runs, 'cpu_us', 3)} µs, p99 "
                      f"{cell(all_runs, 'p99_us', 0)} µs, {cell(all_runs, 'bytes', 0)} B, missing "
                      f"{cell(all_runs, 'missing', 0)}", flush=True)
    versions = {PEERS[name][0]: version(PEERS[name][1][0]) for name in peers if name != "floor"}
    versions["etcd behind them"] = version(server)
    data = {"machine": gateway.machine(), "versions": versions, "quick": options.quick, "runs": runs,
            "seconds": round(time.monotonic() - started, 1), "failures": failures, "found": found}
    (options.results / "watch.json").write_text(json.dumps(data, indent=1) + "\n")
    text = report(data)
    (options.results / "watch.md").write_text(text)
    curve.write(found, options.results)
    print(text)
    print(f"wrote {options.results}/watch.json and watch.md in {data['seconds']} s")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
