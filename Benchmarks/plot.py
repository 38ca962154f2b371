#!/usr/bin/env python3
"""Bar plots of the gateway benchmark as SVG: median bars with whiskers between the quartiles.

As a program it draws Benchmarks/results/gateway.json, or the file that is named, again."""

import json
import math
import pathlib
import sys
from xml.sax.saxutils import escape

import report

# One colour a peer in every plot; they read on white and on near-black.
COLOURS = {"ringway": "#e4572e", "ringway-epoll": "#f2a27e", "etcd": "#3d85c6", "haproxy": "#6aa84f",
           "haproxy-splice": "#a2c48f", "floor-copy": "#8e7cc3", "floor-splice": "#b9aedb",
           "direct": "#999999"}
STYLE = """
  text { font: 13px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
  .title { font-size: 17px; font-weight: 600; }
  .group { font-weight: 600; }
  .small { font-size: 12px; fill: #59636e; }
  .back { fill: #ffffff; }
  .grid { stroke: #d1d9e0; }
  .whisker { stroke: #1f2328; stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; }
    .small { fill: #9198a1; }
    .back { fill: #0d1117; }
    .grid { stroke: #3d444d; }
    .whisker { stroke: #f0f6fc; }
  }
"""
WIDTH, LEFT, RIGHT, ROW, BAR = 820, 160, 120, 24, 15

# file name, title, kind, position of the metric in report.METRICS
PLOTS = [
    ("bulk-cpu", "CPU to relay a gigabyte", "bulk", 0),
    ("bulk-throughput", "Bulk throughput", "bulk", 1),
    ("rr-cpu", "CPU of a round trip, 64 connections", "rr", 0),
    ("rr-p99", "Round trip latency, 99th percentile, 64 connections", "rr", 3),
    ("churn-cpu", "CPU of a short connection", "churn", 0),
    ("idle-memory", "Private memory of an idle connection", "idle", 0),
]


def nice_step(largest):
    """A round distance of grid lines: 1, 2 or 5 times a power of ten, three to seven lines."""
    rough = largest / 6
    power = 10 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough)


def line(x1, y1, x2, y2, css):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def label(x, y, text, css="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(text)}</text>'


def bar(y, peer, title, found, metric, x_of):
    middle = y + ROW / 2
    start, end = x_of(0), x_of(found.median)
    low, high = x_of(found.low), x_of(found.high)
    value = f"{found.median:.{metric.digits}f}" + (" unstable" if found.unstable else "")
    parts = [label(LEFT - 10, middle + 4, title, anchor="end"),
             f'<rect x="{start:.1f}" y="{middle - BAR / 2:.1f}" width="{max(end - start, 1):.1f}" '
             f'height="{BAR}" rx="2" fill="{COLOURS[peer]}"/>',
             line(low, middle, high, middle, "whisker")]
    parts += [line(x, middle - 4, x, middle + 4, "whisker") for x in (low, high)]
    parts.append(label(max(end, high) + 8, middle + 4, value, "small"))
    return parts


def groups_of(data, kind, metric):
    """[(title of the scenario, [(peer, figure)])] of what was measured."""
    groups = []
    for scenario in data["scenarios"].values():
        if scenario["kind"] != kind:
            continue
        figures = [(peer, report.figure(runs, metric)) for peer, runs in scenario["peers"].items()]
        rows = [(peer, found) for peer, found in figures if found]
        if rows:
            groups.append((scenario["title"], rows))
    return groups


def draw(data, title, kind, position):
    metric = report.METRICS[kind][position]
    groups = groups_of(data, kind, metric)
    largest = max((found.high for _, rows in groups for _, found in rows), default=0)
    if largest <= 0:
        return None
    step = nice_step(largest)
    end = math.ceil(largest / step) * step
    bottom = 48 + sum(26 + ROW * len(rows) + 8 for _, rows in groups)
    height = bottom + 50

    def x_of(value):
        return LEFT + max(value, 0) / end * (WIDTH - LEFT - RIGHT)

    parts = [f'<rect class="back" width="{WIDTH}" height="{height}"/>', label(16, 28, title, "title")]
    for number in range(round(end / step) + 1):
        x = x_of(number * step)
        parts += [line(x, 44, x, bottom, "grid"),
                  label(x, bottom + 17, f"{number * step:g}", "small", "middle")]
    unit = f"{metric.title}, {metric.unit}{report.UNIT_OF_WORK[kind] if position == 0 else ''}"
    parts.append(label((LEFT + WIDTH - RIGHT) / 2, bottom + 37, unit + " (median; whiskers: all runs)",
                       "small", "middle"))
    y = 48
    for name, rows in groups:
        parts.append(label(16, y + 17, name, "group"))
        y += 26
        for peer, found in rows:
            parts += bar(y, peer, data["titles"][peer], found, metric, x_of)
            y += ROW
        y += 8
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" role="img" aria-label="{escape(title)}">\n<style>{STYLE}</style>\n'
            + "\n".join(parts) + "\n</svg>\n")


def write_all(data, folder):
    for name, title, kind, position in PLOTS:
        if picture := draw(data, title, kind, position):
            (pathlib.Path(folder) / f"{name}.svg").write_text(picture)


if __name__ == "__main__":
    source = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else
                          pathlib.Path(__file__).parent / "results" / "gateway.json")
    write_all(json.loads(source.read_text()), source.parent)
