"""A strict reader of the Prometheus text format 0.0.4."""

import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)")


def read(text):
    """{(name, labels): value} of everything; labels is a sorted tuple of pairs. Raises on any deviation."""
    assert text.endswith("\n")
    samples, kinds, family, helped = {}, {}, None, set()
    for line in text[:-1].split("\n"):
        if match := re.fullmatch(rf"# HELP ({NAME}) (.+)", line):
            assert match[1] not in helped, line
            helped.add(match[1])
            family = None
        elif match := re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge|histogram|summary|untyped)", line):
            family = match[1]
            assert family in helped and family not in kinds, line
            kinds[family] = match[2]
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            name, labels = match[1], tuple(sorted(re.findall(LABEL, match[2] or "")))
            suffixes = ["_bucket", "_sum", "_count"] if kinds.get(family) == "histogram" else [""]
            assert name in [family + suffix for suffix in suffixes], line
            assert kinds[family] != "counter" or name.endswith("_total"), line
            assert (name, labels) not in samples, line
            samples[name, labels] = float(match[match.lastindex])
    check_histograms(samples, kinds)
    return samples


def check_histograms(samples, kinds):
    for family in [name for name, kind in kinds.items() if kind == "histogram"]:
        buckets = [(float(dict(labels)["le"]), value) for (name, labels), value in samples.items()
                   if name == family + "_bucket"]
        assert buckets == sorted(buckets), family
        assert [value for _, value in buckets] == sorted(value for _, value in buckets), family
        assert buckets[-1][0] == float("inf")
        assert buckets[-1][1] == samples[family + "_count", ()]
