"""Figures, ratios and the Markdown report of the gateway benchmark."""

import dataclasses
import statistics

import relays

UNSTABLE = 1.3  # a figure whose upper end is more than this times its lower one
QUARTILES = 5   # runs from which on the ends are the quartiles: one bad moment of the machine is no property of a peer


@dataclasses.dataclass(frozen=True)
class Metric:
    key: str
    title: str
    unit: str
    scale: float
    digits: int


CPU_US = Metric("cpu_per_unit", "CPU", "µs", 1e6, 1)
P50 = Metric("p50_us", "p50", "µs", 1, 0)
P99 = Metric("p99_us", "p99", "µs", 1, 0)
METRICS = {
    "bulk": [Metric("cpu_per_unit", "CPU", "s/GB", 1, 3),
             Metric("gb_per_second", "Throughput", "GB/s", 1, 2)],
    "rr": [CPU_US, Metric("per_second", "Round trips", "1000/s", 1e-3, 1), P50, P99],
    "churn": [CPU_US, Metric("per_second", "Connections", "1000/s", 1e-3, 1), P50, P99],
    "idle": [Metric("Private_Dirty_per_connection", "Private memory", "KiB", 1 / 1024, 2),
             Metric("VmRSS_per_connection", "Resident memory", "KiB", 1 / 1024, 2),
             Metric("VmRSS", "Whole process, resident", "MiB", 1 / 2**20, 1)],
}
UNIT_OF_WORK = {"bulk": "", "rr": " a round trip", "churn": " a connection", "idle": " a connection"}


@dataclasses.dataclass(frozen=True)
class Figure:
    median: float
    low: float
    high: float

    @property
    def unstable(self):
        return self.low > 0 and self.high / self.low > UNSTABLE


def figure(runs, metric):
    values = [run[metric.key] * metric.scale for run in runs if metric.key in run]
    if not values:
        return None
    if len(values) < QUARTILES:
        return Figure(statistics.median(values), min(values), max(values))
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Figure(middle, low, high)


def text_of(found, metric):
    if not found:
        return "-"
    low, high = f"{found.low:.{metric.digits}f}", f"{found.high:.{metric.digits}f}"
    mark = " (unstable)" if found.unstable else ""
    return f"{found.median:.{metric.digits}f} [{low} to {high}]{mark}"


# Who stands for a rival of which several rows exist: whichever of them does better.
RIVALS = {"etcd": ["etcd"], "HAProxy": ["haproxy", "haproxy-splice"], "floor": ["floor-copy", "floor-splice"]}
# kind, position of the metric in METRICS, rival, largest ratio that meets the target (None: no target)
TARGETS = [
    ("bulk", 0, "etcd", 0.70), ("bulk", 0, "HAProxy", None), ("bulk", 0, "floor", 1.15),
    ("rr", 0, "etcd", 0.65), ("rr", 0, "HAProxy", 0.85), ("rr", 0, "floor", 1.15),
    ("rr", 3, "etcd", 1.00), ("rr", 3, "HAProxy", 1.00), ("rr", 3, "floor", 1.15),
    ("churn", 0, "etcd", None), ("churn", 0, "HAProxy", None), ("churn", 0, "floor", 1.15),
    ("idle", 0, "etcd", 0.15), ("idle", 0, "HAProxy", None), ("idle", 0, "floor", None),
]


def best(scenario, metric, names):
    """The runs of the peer with the lowest figure; every figure that has a target is better when lower."""
    known = [runs for name in names if figure(runs := scenario["peers"].get(name, []), metric)]
    return min(known, key=lambda runs: figure(runs, metric).median, default=[])


def ratio(scenario, metric, peer, rival):
    """(median of the ratios of each round, rounded as shown; whether it is unstable), or None if not measured. The peers
    of a round ran within seconds of each other: what the machine did meanwhile hit them alike."""
    ours, theirs = scenario["peers"].get(peer, []), best(scenario, metric, RIVALS[rival])
    rounds = [{metric.key: own[metric.key] / other[metric.key]} for own, other in zip(ours, theirs)
              if metric.key in own and other.get(metric.key, 0) > 0]
    found = figure(rounds, dataclasses.replace(metric, scale=1))
    return found and (round(found.median, 2), found.unstable)


def verdict(found, limit):
    if not found:
        return "not measured"
    if limit is None:
        return ""
    answer = "met" if found[0] <= limit else "**not met**"
    return answer + (" (unstable)" if found[1] else "")


def ratio_table(data):
    lines = ["| Figure | Against | Target | Ringway (io_uring) | Verdict | Ringway (epoll) |",
             "|---|---|---|---|---|---|"]
    for scenario in data["scenarios"].values():
        for kind, position, rival, limit in TARGETS:
            if kind != scenario["kind"]:
                continue
            metric = METRICS[kind][position]
            ring = ratio(scenario, metric, "ringway", rival)
            epoll = ratio(scenario, metric, "ringway-epoll", rival)
            target = f"≤ {limit:.2f}" if limit else "-"
            cells = [f"{found[0]:.2f}" if found else "-" for found in (ring, epoll)]
            lines.append(f"| {scenario['title']}: {metric.title} | {rival} | {target} | {cells[0]} "
                         f"| {verdict(ring, limit)} | {cells[1]} |")
    return "\n".join(lines)


README = relays.ROOT / "README.md"
MARKS = "<!-- figures of the gateway -->", "<!-- end of figures -->"


def update_readme(data):
    """Writes the first figure of each scenario between the marks."""
    lines = ["| Figure | Ringway | etcd | HAProxy | floor |", "|---|---|---|---|---|"]
    for scenario in data["scenarios"].values():
        metric = METRICS[scenario["kind"]][0]
        columns = [["ringway"], *RIVALS.values()]
        found = [figure(best(scenario, metric, names), metric) for names in columns]
        cells = [f"{f.median:.{metric.digits}f}" if f else "-" for f in found]
        what = f"{scenario['title']}: {metric.title}{UNIT_OF_WORK[scenario['kind']]}, {metric.unit}"
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    text = README.read_text()
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    README.write_text(f"{before}{MARKS[0]}\n" + "\n".join(lines) + f"\n{MARKS[1]}{after}")


def scenario_table(scenario, titles):
    metrics = METRICS[scenario["kind"]]
    suffix = UNIT_OF_WORK[scenario["kind"]]
    heads = [f"{m.title}{suffix if m is metrics[0] else ''} ({m.unit})" for m in metrics]
    lines = ["| Gateway | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for peer, runs in scenario["peers"].items():
        cells = [text_of(figure(runs, metric), metric) for metric in metrics]
        lines.append(f"| {titles[peer]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def print_progress(title, kind, peers):
    print(f"\n{title}")
    for peer, runs in peers.items():
        cells = [f"{m.title} {text_of(figure(runs, m), m)} {m.unit}" for m in METRICS[kind]]
        print(f"  {relays.PEERS[peer][0]:20} " + "; ".join(cells), flush=True)


def markdown(data):
    machine, versions = data["machine"], data["machine"]["versions"]
    parts = [
        "# Gateway benchmark", "",
        f"{machine['date']}, commit `{machine['commit']}`. {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, kernel {machine['kernel']}, load average at the end "
        f"{machine['load_average']:.1f}.", "",
        f"{versions['etcd']}; {versions['haproxy']}; Ringway {versions['ringway']}.", "",
        f"Up to {data['runs']} runs of each peer in turn{' (quick)' if data['quick'] else ''}, all on "
        f"127.0.0.1. A figure is the median [lower to upper quartile; of fewer than {QUARTILES} runs smallest to "
        f"largest]; unstable means that the upper is more than {UNSTABLE} times the lower. CPU is user and system "
        f"time of the gateway's process.", "",
        "## Ratios", "",
        "Below 1 is less than the rival: the median of the rounds, in each of which all peers ran one after the other. "
        "The rival HAProxy is the better of its two rows, and so is the floor.",
        "", ratio_table(data), ""]
    for scenario in data["scenarios"].values():
        parts += [f"## {scenario['title']}", "", scenario_table(scenario, data["titles"]), ""]
    if data["failures"]:
        parts += ["## Failures", ""] + [f"- {failure}" for failure in data["failures"]] + [""]
    return "\n".join(parts)
