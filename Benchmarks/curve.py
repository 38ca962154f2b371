#!/usr/bin/env python3
"""The growth curve of the watch benchmark as SVG: CPU a delivery over the number of watchers, both axes logarithmic.

As a program it draws Benchmarks/results/watch.json, or the file that is named, again."""

import json
import math
import pathlib
import statistics
import sys
from xml.sax.saxutils import escape

from plot import STYLE, label, line

COLOURS = {"ringway": ("Ringway", "#e4572e"), "etcd-3.5": ("etcd 3.5", "#3d85c6"), "etcd-3.4": ("etcd 3.4", "#9fc5e8"),
           "floor": ("Floor", "#8e7cc3")}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 820, 460, 80, 110, 56, 400


def points_of(found):
    """{peer: [(watchers, smallest, median, largest)]}"""
    points = {peer: [] for peer in COLOURS}
    for name, peers in found.items():
        if not name.startswith("growth"):
            continue
        for peer, runs in peers.items():
            if values := [run["cpu_us"] for run in runs]:
                points[peer].append((int(name[len("growth"):]), min(values), statistics.median(values), max(values)))
    return {peer: sorted(rows) for peer, rows in points.items() if rows}


def draw(found):
    points = points_of(found)
    if not points:
        return None
    every = [row for rows in points.values() for row in rows]
    left, right = (math.log10(pick(row[0] for row in every)) for pick in (min, max))
    low = math.floor(math.log10(max(min(row[1] for row in every), 1e-3)))
    high = math.ceil(math.log10(max(row[3] for row in every)))

    def x_of(watchers):
        return LEFT + (math.log10(watchers) - left) / max(right - left, 1) * (WIDTH - LEFT - RIGHT)

    def y_of(value):
        return BOTTOM - (math.log10(max(value, 1e-3)) - low) / max(high - low, 1) * (BOTTOM - TOP)

    title = "CPU of a delivery by number of watchers, 10 connections"
    parts = [f'<rect class="back" width="{WIDTH}" height="{HEIGHT}"/>', label(16, 28, title, "title")]
    for power in range(low, high + 1):
        parts += [line(LEFT, y_of(10 ** power), WIDTH - RIGHT, y_of(10 ** power), "grid"),
                  label(LEFT - 8, y_of(10 ** power) + 4, f"{10 ** power:g}", "small", "end")]
    for power in range(round(left), round(right) + 1):
        parts += [line(x_of(10 ** power), TOP, x_of(10 ** power), BOTTOM, "grid"),
                  label(x_of(10 ** power), BOTTOM + 18, f"{10 ** power:,}", "small", "middle")]
    parts += [label(LEFT - 8, TOP - 10, "µs", "small", "end"),
              label((LEFT + WIDTH - RIGHT) / 2, BOTTOM + 40, "watchers (median; whiskers: all runs)", "small", "middle")]
    for peer, rows in points.items():
        name, colour = COLOURS[peer]
        path = " ".join(f"{x_of(row[0]):.1f},{y_of(row[2]):.1f}" for row in rows)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        for watchers, least, middle, most in rows:
            x = x_of(watchers)
            parts += [line(x, y_of(least), x, y_of(most), "whisker"),
                      f'<circle cx="{x:.1f}" cy="{y_of(middle):.1f}" r="4" fill="{colour}"/>']
        parts.append(label(x_of(rows[-1][0]) + 12, y_of(rows[-1][2]) + 4, name))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            f'role="img" aria-label="{escape(title)}">\n<style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n")


def write(found, folder):
    if picture := draw(found):
        (pathlib.Path(folder) / "watch-growth.svg").write_text(picture)


if __name__ == "__main__":
    source = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else
                          pathlib.Path(__file__).parent / "results" / "watch.json")
    write(json.loads(source.read_text())["found"], source.parent)
