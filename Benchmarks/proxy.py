#!/usr/bin/env python3
"""Benchmark of the gRPC proxies: Ringway beside etcd's own, in front of one etcd, with h2load as the client.

The proxies take turns run by run. Results go to Benchmarks/results: proxy.json and proxy.md."""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import heartbeats
import relays

RESULTS = relays.ROOT / "Benchmarks" / "results"
VALUE = 256
IDLE = {"plain": 2000, "tls": 500}

# name: (title, connections, in flight on each, requests, requests of --quick, target for CPU, serializable)
LOADS = {
    "read64": ("Read, 64 in flight", 1, 64, 60_000, 20_000, 0.15, False),
    "read1": ("Read, 1 in flight", 1, 1, 10_000, 4_000, 0.15, False),
    "read100": ("Read, 100 connections, 1 in flight each", 100, 1, 40_000, 15_000, None, False),
    "cached64": ("Cached read, 64 in flight", 1, 64, 60_000, 20_000, 0.12, True),
}
LEASES, LEASE_STREAMS, LEASE_SECONDS, LEASE_TARGET = 20_000, 200, 20, 0.10


def grpc_proxy(program, *flags):
    return lambda listen, endpoint, extra: [
        str(program), "grpc-proxy", "start", f"--listen-addr={listen}", f"--endpoints={endpoint}",
        f"--advertise-client-url={listen}", *flags, *extra]


# The floor passes bytes on and understands none: no proxy that reads the calls can do with less.
PROXIES = {
    "ringway": grpc_proxy(relays.RINGWAY, "--io-backend=io_uring"),
    "ringway-epoll": grpc_proxy(relays.RINGWAY, "--io-backend=epoll"),
    "ringway-1core": grpc_proxy(relays.RINGWAY, "--threads=1"),
    "etcd": grpc_proxy("etcd"),
    "floor": lambda listen, endpoint, _: relays.floor("floor_copy")(listen, endpoint),
}


def wait_for_port(address, process):
    host, port = address.split(":")
    limit = time.monotonic() + 20
    while time.monotonic() < limit and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on {address}")


class Etcd:
    def __init__(self, folder, program="etcd"):
        client, peer = relays.free_port(), relays.free_port()
        self.address = f"127.0.0.1:{client}"
        with open(relays.SCRATCH / "bench-etcd.log", "wb") as log:
            self.process = relays.spawn(
                [program, "--data-dir", folder, "--listen-client-urls", f"http://{self.address}",
                 "--advertise-client-urls", f"http://{self.address}",
                 "--listen-peer-urls", f"http://127.0.0.1:{peer}",
                 "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
                 "--initial-cluster", f"default=http://127.0.0.1:{peer}", "--unsafe-no-fsync"],
                stdout=log, stderr=log)
        wait_for_port(self.address, self.process)

    def close(self):
        relays.end(self.process)


class Proxy(relays.Relay):
    """A running proxy; CPU time and memory as of a relay."""

    def __init__(self, name, endpoint, *extra):
        self.name = name
        self.address = f"127.0.0.1:{relays.free_port()}"
        with open(relays.SCRATCH / f"proxy-{name}.log", "ab") as log:
            self.process = relays.spawn(PROXIES[name](self.address, endpoint, extra), stdin=subprocess.DEVNULL, stdout=log,
                                        stderr=log, cwd=relays.SCRATCH)
        wait_for_port(self.address, self.process)
        time.sleep(0.3)


def request_file(folder, key, is_serializable):
    body = b"\x0a" + bytes([len(key)]) + key + (b"\x38\x01" if is_serializable else b"")
    path = pathlib.Path(folder) / f"request-{int(is_serializable)}.bin"
    path.write_bytes(b"\0" + struct.pack(">I", len(body)) + body)
    return str(path)


UNITS = {"us": 1, "ms": 1e3, "s": 1e6}


def run_load(proxy, body, connections, streams, requests, is_shared):
    log = pathlib.Path(body).with_name("latencies.log")
    log.unlink(missing_ok=True)
    before = proxy.cpu()[0]
    out = subprocess.run(
        ["h2load", "-n", str(requests), "-c", str(connections), "-m", str(streams), "-d", body,
         f"--log-file={log}", "-H", "content-type: application/grpc", "-H", "te: trailers",
         # All ask for the same key: without it Ringway would ask etcd once for those that come together.
         *([] if is_shared else ["-H", "ringway-bypass: cache"]),
         f"http://{proxy.address}/etcdserverpb.KV/Range"], capture_output=True, text=True, timeout=120)
    spent = proxy.cpu()[0] - before
    good = int(re.search(r"(\d+) succeeded", out.stdout)[1])
    if good != requests:
        raise RuntimeError(f"{good} of {requests} calls through {proxy.name} succeeded")
    rate = float(re.search(r"finished in .*?, ([\d.]+) req/s", out.stdout)[1])
    times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    return {"cpu_us": spent / requests * 1e6, "per_second": rate, "p50_us": times[len(times) // 2],
            "p99_us": times[len(times) * 99 // 100]}


def certificates(folder):
    run = lambda *arguments: subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)
    run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
        "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem")
    return [f"--cert-file={folder}/cert.pem", f"--key-file={folder}/key.pem"]


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"


def idle_memory(proxy, kind):
    """Private memory a connection that has greeted and then says nothing."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, port = proxy.address.split(":")
    before = proxy.memory()
    held = []
    try:
        for _ in range(IDLE[kind]):
            one = socket.create_connection((host, int(port)), 5)
            if kind == "tls":
                one = context.wrap_socket(one)
            one.sendall(PREFACE)
            one.recv(9)
            held.append(one)
        time.sleep(1)
        after = proxy.memory()
    finally:
        for one in held:
            one.close()
    return {"KiB": (after["Private_Dirty"] - before["Private_Dirty"]) / 1024 / IDLE[kind]}


def large_range(name, etcd, folder):
    """100 MB in one answer: how much more memory the proxy has at most while it passes."""
    environment = {**os.environ, "ETCDCTL_API": "3"}
    with contextlib.closing(Proxy(name, etcd.address)) as proxy:
        before = proxy.memory()["VmRSS"]
        reader = subprocess.Popen(
            ["etcdctl", f"--endpoints={proxy.address}", "--command-timeout=60s", "get", "--prefix", "big/",
             "--print-value-only"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        most = before
        while reader.poll() is None:
            most = max(most, proxy.memory()["VmRSS"])
            time.sleep(0.005)
        if reader.returncode:
            raise RuntimeError(f"the large range through {name} failed")
        return {"MiB": (most - before) / 2**20}


def fill(etcd):
    environment = {**os.environ, "ETCDCTL_API": "3"}
    put = lambda key, value: subprocess.run(
        ["etcdctl", f"--endpoints={etcd.address}", "put", key], input=value, check=True, capture_output=True,
        env=environment)
    put("bench", os.urandom(VALUE // 2).hex().encode())
    for index in range(100):
        put(f"big/{index:03}", os.urandom(500_000).hex().encode())


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def spread(runs, key, digits=1):
    values = [run[key] for run in runs]
    unstable = " (unstable)" if min(values) > 0 and max(values) / min(values) > 1.3 else ""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f} to {max(values):.{digits}f}]{unstable}"


def verdict(value, target):
    return "met" if value <= target else "**not met**"


def report(found, versions):
    lines = ["# gRPC proxy benchmark", "", versions, "",
             "CPU is user and system time of the proxy's process a call; medians [smallest to largest]. The floor is a "
             "minimal program that passes the bytes on with io_uring, without reading them.", "",
             "| Figure | Ringway | etcd | Ratio | Target | Verdict | Floor | Floor of etcd |",
             "|---|---|---|---|---|---|---|---|"]
    for name, (title, *_, cpu, _) in LOADS.items():
        ours, theirs = found[name]["ringway"], found[name]["etcd"]
        for key, unit, target in (("cpu_us", "CPU µs", cpu), ("p50_us", "p50 µs", 1), ("p99_us", "p99 µs", 1)):
            ratio = median(ours, key) / median(theirs, key)
            goal, word = (f"≤ {target}", verdict(ratio, target)) if target else ("-", "")
            floor = median(found[name]["floor"], key)
            lines.append(f"| {title}: {unit} | {spread(ours, key)} | {spread(theirs, key)} | {ratio:.2f} | {goal} | {word} "
                         f"| {floor:.1f} | {floor / median(theirs, key):.2f} |")
    ours, theirs = found["heartbeats"]["ringway"], found["heartbeats"]["etcd"]
    ratio = median(ours, "cpu_us") / median(theirs, "cpu_us")
    lines.append(f"| Heartbeat, {LEASES} leases on {LEASE_STREAMS} streams: CPU µs | {spread(ours, 'cpu_us')} | "
                 f"{spread(theirs, 'cpu_us')} | {ratio:.2f} | ≤ {LEASE_TARGET} | {verdict(ratio, LEASE_TARGET)} | | |")
    for kind, limit in (("plain", 5), ("tls", 40)):
        ours, theirs = found[f"idle-{kind}"]["ringway"], found[f"idle-{kind}"]["etcd"]
        value = median(ours, "KiB")
        lines.append(f"| Idle connection, {kind}: KiB | {spread(ours, 'KiB')} | {spread(theirs, 'KiB')} | "
                     f"{value / median(theirs, 'KiB'):.2f} | ≤ {limit} KiB | {verdict(value, limit)} | | |")
    ours, theirs = found["large"]["ringway"], found["large"]["etcd"]
    lines.append(f"| 100 MB range: MiB more at most | {spread(ours, 'MiB')} | {spread(theirs, 'MiB')} | "
                 f"{median(ours, 'MiB') / median(theirs, 'MiB'):.2f} | constant | | | |")
    lines += ["", "| Load | " + " | ".join(PROXIES) + " |", "|---|" + "---|" * len(PROXIES)]
    for name, (title, *_) in LOADS.items():
        for key, unit in (("cpu_us", "CPU µs"), ("per_second", "calls/s"), ("p50_us", "p50 µs"), ("p99_us", "p99 µs")):
            cells = [spread(found[name][proxy], key) if found[name].get(proxy) else "-" for proxy in PROXIES]
            lines.append(f"| {title}: {unit} | " + " | ".join(cells) + " |")
    two, one = found["read100"]["ringway"], found["read100"]["ringway-1core"]
    lines += ["", f"Two cores instead of one, 100 connections: {median(two, 'per_second') / median(one, 'per_second'):.2f} "
              "times the calls a second (etcd and the load generator share the same cores)."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 shorter runs of each")
    parser.add_argument("--runs", type=int, help="runs of each proxy and load, default 5")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    options = parser.parse_args()
    if not shutil.which("h2load"):
        sys.exit("h2load is missing: make setup")
    runs = options.runs or (2 if options.quick else 5)
    for folder in (options.results, relays.SCRATCH):
        folder.mkdir(parents=True, exist_ok=True)
    found = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder, \
            contextlib.closing(Etcd(folder + "/etcd")) as etcd:
        fill(etcd)
        for name, (title, connections, streams, requests, fewer, _, is_serializable) in LOADS.items():
            body = request_file(folder, b"bench", is_serializable)
            found[name] = {proxy: [] for proxy in PROXIES}
            for number in range(runs):
                order = list(PROXIES)[number % len(PROXIES):] + list(PROXIES)[:number % len(PROXIES)]
                for proxy in order:
                    with contextlib.closing(Proxy(proxy, etcd.address)) as running:
                        run_load(running, body, connections, streams, 500, is_serializable)
                        found[name][proxy].append(
                            run_load(running, body, connections, streams, fewer if options.quick else requests,
                                     is_serializable))
            for proxy, all_runs in found[name].items():
                print(f"{title}: {proxy}: CPU {spread(all_runs, 'cpu_us')} µs, p99 {spread(all_runs, 'p99_us')} µs")
        found["heartbeats"] = {proxy: [] for proxy in ("ringway", "etcd")}
        for proxy, all_runs in found["heartbeats"].items():
            for _ in range(1 if options.quick else 3):
                with contextlib.closing(Proxy(proxy, etcd.address)) as running:
                    all_runs.append(heartbeats.run(running, etcd, LEASES, LEASE_STREAMS, LEASE_SECONDS))
            print(f"Heartbeats: {proxy}: CPU {spread(all_runs, 'cpu_us')} µs, "
                  f"unanswered {max(run['unanswered'] for run in all_runs)}")
        for kind, extra in (("plain", []), ("tls", certificates(folder))):
            found[f"idle-{kind}"] = {proxy: [] for proxy in ("ringway", "etcd")}
            for proxy, all_runs in found[f"idle-{kind}"].items():
                # Without an advertised address etcd's proxy does not dial itself, which it could not with this certificate.
                with contextlib.closing(Proxy(proxy, etcd.address, "--advertise-client-url=", *extra)) as running:
                    all_runs.append(idle_memory(running, kind))
                print(f"Idle, {kind}: {proxy}: {spread(all_runs, 'KiB')} KiB a connection")
        found["large"] = {proxy: [large_range(proxy, etcd, folder)] for proxy in ("ringway", "etcd")}
        for proxy, all_runs in found["large"].items():
            print(f"100 MB range: {proxy}: {spread(all_runs, 'MiB')} MiB more")
    versions = "; ".join(f"{name} {text}" for name, text in relays.versions().items() if name != "haproxy")
    (options.results / "proxy.json").write_text(json.dumps({"versions": versions, "found": found}, indent=1))
    text = report(found, versions)
    (options.results / "proxy.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
