"""What etcd sees of those who stand in front of it."""

import os
import urllib.request

from support.grpc_proxy import IS_OURS, PROGRAM, GrpcProxy
from support.proxy_state import sample
from support.waiting import until

IS_NONE = PROGRAM == "none"
FLAGS = os.environ.get("RINGWAY_FLAGS", "").split()


class Upstream:
    """Counts from etcd's own metrics, without what an idle proxy has there."""

    def __init__(self, *etcds):
        self.etcds = etcds
        self.base_watchers = self.base_streams = 0

    def settle(self):
        """Takes what is there now for that of an idle proxy."""
        self.base_watchers = self.base_streams = 0
        self.base_watchers, self.base_streams = self.watchers, self.streams

    def _sum(self, name, labels=""):
        total = 0
        for etcd in self.etcds:
            with urllib.request.urlopen(f"http://{etcd.client}/metrics", timeout=5) as answer:
                text = answer.read().decode()
            total += sample("\n".join(line for line in text.splitlines() if labels in line), name)
        return int(total)

    @property
    def watchers(self):
        return self._sum("etcd_debugging_mvcc_watcher_total") - self.base_watchers

    @property
    def streams(self):
        return self._sum("etcd_debugging_mvcc_watch_stream_total") - self.base_streams

    @property
    def watch_requests(self):
        """Messages on Watch streams so far."""
        return self._sum("grpc_server_msg_received_total", 'grpc_service="etcdserverpb.Watch"')

    @property
    def beats(self):
        """Heartbeats so far."""
        return self._sum("grpc_server_msg_received_total", 'grpc_method="LeaseKeepAlive"')

    @property
    def beating_streams(self):
        label = 'grpc_method="LeaseKeepAlive"'
        return self._sum("grpc_server_started_total", label) - self._sum("grpc_server_handled_total", label)

    def until_idle(self, seconds=15):
        until(lambda: self.watchers <= 0, seconds, "the end of all watches")


class Front:
    """The proxy under test before these endpoints; with RINGWAY_PROXY=none there is nothing in between."""

    def __init__(self, endpoints, *flags):
        self.proxy = None
        self.address = endpoints
        if not IS_NONE:
            self.proxy = GrpcProxy("--endpoints", endpoints, "--advertise-client-url", "", *FLAGS, *flags)
            self.address = self.proxy.address

    def close(self):
        if self.proxy:
            status = self.proxy.end()
            assert not IS_OURS or status == 0, self.proxy.log
