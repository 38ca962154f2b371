#!/usr/bin/env python3
"""Benchmark of TCP gateways: Ringway beside etcd's gateway, HAProxy and the floor that the kernel sets.

Every run starts a fresh relay on free loopback ports; the peers take turns run by run, so that a change of
the machine's mood hits all of them. Results go to Benchmarks/results: gateway.json, gateway.md and plots."""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import resource
import signal
import subprocess
import sys
import time

import plot
import relays
import report

RESULTS = relays.ROOT / "Benchmarks" / "results"
MB = 1_000_000

# name: (title, kind, settings, settings of --quick)
SCENARIOS = {
    "bulk1": ("Bulk, 1 connection", "bulk", {"connections": 1, "bytes": 1500 * MB}, {"bytes": 800 * MB}),
    "bulk64": ("Bulk, 64 connections", "bulk", {"connections": 64, "bytes": 32 * MB}, {"bytes": 16 * MB}),
    "rr64": ("Round trip, 64 B", "rr", {"connections": 64, "size": 64, "requests": 40_000},
             {"requests": 20_000}),
    "rr1k": ("Round trip, 1 KiB", "rr", {"connections": 64, "size": 1024, "requests": 40_000},
             {"requests": 20_000}),
    "churn": ("Short connections", "churn", {"connections": 16, "requests": 8_000}, {"requests": 4_000}),
    "idle2k": ("2,000 idle connections", "idle", {"connections": 2_000}, {}),
    "idle3k": ("3,000 idle connections", "idle", {"connections": 3_000}, {}),
    "idle8k": ("8,000 idle connections", "idle", {"connections": 8_000}, {}),
}
IDLE_RUNS = 3                    # memory hardly varies
BUDGET, QUICK_BUDGET = 900, 150  # seconds; a slow machine gets fewer runs, but at least two


def settings_of(scenario, quick):
    _, _, settings, shorter = SCENARIOS[scenario]
    return {**settings, **(shorter if quick else {})}


class Bench:
    def __init__(self, options):
        self.options = options
        self.cpus = {"sink": 0, "load": os.cpu_count() - 1} if options.pin else {}

    def load(self, mode, address, **settings):
        command = [str(relays.BUILT / "load"), mode, "--addr", address, "--max-seconds", "20"]
        if "load" in self.cpus:
            command += ["--cpu", str(self.cpus["load"])]
        for key, value in settings.items():
            command += [f"--{key}", str(value)]
        return command

    def run_load(self, mode, address, **settings):
        process = relays.spawn(self.load(mode, address, **settings), stdout=subprocess.PIPE, text=True)
        try:
            line = process.stdout.readline()
            if process.wait(30) != 0:
                raise RuntimeError(f"load {mode} failed")
            return json.loads(line)
        finally:
            relays.end(process)

    def warm_up(self, mode, address, settings):
        small = dict(settings)
        if mode == "bulk":
            small["bytes"] = max(settings["bytes"] // 20, 1 * MB)
        else:
            small["requests"] = settings["requests"] // 20
        self.run_load(mode, address, **small)

    def measure_busy(self, relay, mode, settings):
        self.warm_up(mode, relay.address, settings)
        before = relay.cpu()
        result = self.run_load(mode, relay.address, **settings)
        after = relay.cpu()
        units = {"bulk": result.get("bytes", 0) / 1e9, "rr": result.get("round_trips"),
                 "churn": settings.get("requests")}[mode]
        if before:
            spent = [b - a for a, b in zip(before, after)]
            result.update(cpu_s=spent[0], user_s=spent[1], system_s=spent[2], cpu_per_unit=spent[0] / units)
        return result

    def measure_idle(self, relay, settings):
        time.sleep(0.1)
        before = relay.memory()
        command = self.load("idle", relay.address, **settings)
        process = relays.spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("load idle failed")
            result = json.loads(line)
            time.sleep(0.3)
            after = relay.memory()
            for key, value in after.items():
                result[key] = value
                result[f"{key}_per_connection"] = (value - before[key]) / settings["connections"]
            return result
        finally:
            relays.end(process)

    def run(self, scenario, peer):
        kind, settings = SCENARIOS[scenario][1], settings_of(scenario, self.options.quick)
        # A new server means a new port: no run searches for one among the closed connections of the last.
        with contextlib.closing(relays.Sink(self.cpus.get("sink"))) as sink:
            with contextlib.closing(relays.Relay(peer, sink.address)) as relay:
                if kind == "idle":
                    return self.measure_idle(relay, settings)
                return self.measure_busy(relay, kind, settings)


def cannot(scenario, peer, descriptors):
    """Why this peer does not take part in this scenario, or None."""
    _, kind, settings, _ = SCENARIOS[scenario]
    if kind != "idle":
        return None
    if peer == "direct":
        return "no process to look at"
    needed = relays.PEERS[peer][2] * settings["connections"] + 100
    return f"needs {needed} descriptors of {descriptors}" if needed > descriptors else None


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), "?")
    git = subprocess.run(["git", "-C", str(relays.ROOT), "describe", "--always", "--dirty", "--abbrev=12"],
                         capture_output=True, text=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory, 1),
            "kernel": platform.release(), "python": platform.python_version(),
            "versions": relays.versions(), "commit": git.stdout.strip(),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "load_average": os.getloadavg()[0]}


def choose(text, known, what):
    names = text.split(",") if text else list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"unknown {what}: {', '.join(unknown)} (known: {', '.join(known)})")
    return names


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, help="runs of each peer and scenario, default 9")
    parser.add_argument("--quick", action="store_true", help="2 shorter runs of each, below 3 minutes")
    parser.add_argument("--only", help=f"scenarios, comma separated: {', '.join(SCENARIOS)}")
    parser.add_argument("--peers", help=f"peers, comma separated: {', '.join(relays.PEERS)}")
    parser.add_argument("--pin", action="store_true", help="server on the first core, load on the last")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="folder for the results")
    return parser.parse_args()


def measure(bench, scenarios, peers, runs, budget):
    """All runs: {scenario: {peer: [result of each run]}}, and what failed. A peer that fails is left out of
    the rest of the scenario, the others go on."""
    found, failures, started = {}, [], time.monotonic()
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    for position, scenario in enumerate(scenarios, 1):
        kind = SCENARIOS[scenario][1]
        taking_part = [peer for peer in peers if not cannot(scenario, peer, descriptors)]
        for peer in set(peers) - set(taking_part) - {"direct"}:
            print(f"{scenario}: skips {peer}: {cannot(scenario, peer, descriptors)}")
        found[scenario] = {peer: [] for peer in taking_part}
        for number in range(min(runs, IDLE_RUNS) if kind == "idle" else runs):
            if number >= 2 and time.monotonic() - started > budget * position / len(scenarios):
                print(f"{scenario}: {number} runs instead of {runs}, to end in time")
                break
            start = number % max(len(taking_part), 1)
            for peer in taking_part[start:] + taking_part[:start]:
                if any(failure.startswith(f"{scenario}, {peer}: ") for failure in failures):
                    continue
                try:
                    found[scenario][peer].append(bench.run(scenario, peer))
                except (RuntimeError, subprocess.SubprocessError, OSError, ValueError) as error:
                    failures.append(f"{scenario}, {peer}: {error}")
                    print(failures[-1], file=sys.stderr)
        report.print_progress(*SCENARIOS[scenario][:2], found[scenario])
    return found, failures


def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = arguments()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    scenarios = choose(options.only, SCENARIOS, "scenario")
    wanted = choose(options.peers, relays.PEERS, "peer")
    runs = options.runs or (2 if options.quick else 9)
    for folder in (options.results, relays.SCRATCH):
        folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["make", "-s", "-C", str(relays.ROOT / "Benchmarks")], check=True)
    peers = []
    for peer in wanted:
        if reason := relays.missing(peer):
            print(f"skips {peer}: {reason}")
        else:
            peers.append(peer)
    started = time.monotonic()
    try:
        found, failures = measure(Bench(options), scenarios, peers, runs,
                                  QUICK_BUDGET if options.quick else BUDGET)
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing written")
    data = {"machine": machine(), "quick": options.quick, "runs": runs, "pinned": options.pin,
            "seconds": round(time.monotonic() - started, 1), "failures": failures,
            "scenarios": {name: {"title": SCENARIOS[name][0], "kind": SCENARIOS[name][1],
                                 "settings": settings_of(name, options.quick), "peers": found[name]}
                          for name in found},
            "titles": {name: relays.PEERS[name][0] for name in peers}}
    (options.results / "gateway.json").write_text(json.dumps(data, indent=1) + "\n")
    (options.results / "gateway.md").write_text(report.markdown(data))
    plot.write_all(data, options.results)
    if options.results == RESULTS and not (options.only or options.peers):
        report.update_readme(data)
    print(f"\n{report.ratio_table(data)}\nwrote {options.results}/gateway.json, gateway.md and plots "
          f"in {data['seconds']} s")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
