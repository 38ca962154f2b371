"""What a gRPC proxy holds, and whether it holds nothing any more."""

import re
import urllib.request

from support.waiting import until


def page(proxy, path):
    with urllib.request.urlopen(f"http://{proxy.address}{path}", timeout=10) as answer:
        return answer.read().decode()


def open_calls(proxy):
    """By method; needs --enable-pprof."""
    return {name: int(count) for name, count in re.findall(
        r"^open calls \w+\.(\S+): (\d+)", page(proxy, "/debug/pprof/"), re.M)}


def client_connections(proxy):
    """Without the one that asks."""
    return int(re.search(r"^client connections: (\d+)", page(proxy, "/debug/pprof/"), re.M)[1]) - 1


def sample(text, name):
    """The sum of a metric's samples."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M))


def watchers(etcd):
    with urllib.request.urlopen(f"http://{etcd.client}/metrics", timeout=5) as answer:
        return sample(answer.read().decode(), "etcd_debugging_mvcc_watcher_total")


def wait_until_idle(proxy, etcds=()):
    """All clients are gone: nothing may be left of them, neither here nor at etcd."""
    until(lambda: not open_calls(proxy), what=f"the end of all calls: {open_calls(proxy)}")
    until(lambda: client_connections(proxy) == 0, what="the end of all connections")
    for etcd in etcds:
        until(lambda: watchers(etcd) == 0, what="the end of all watches")
