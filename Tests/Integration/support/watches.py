"""Watch streams that are checked against a log of what was written."""

import collections
import struct

from support.calls import SECONDS
from support.frames import ACK, DATA, SETTINGS, WINDOW_UPDATE, frame
from support.grpc_calls import request
from support.raw_client import RawClient
from support.schema import METHODS

PUT, DELETE = 0, 1
NOPUT, NODELETE = 0, 1      # filters
ALL_WATCHES = -1            # the id in an answer to a request for progress

Event = collections.namedtuple("Event", "revision kind key value previous")


def event_of(message):
    previous = message.prev_kv.value if message.HasField("prev_kv") else None
    return Event(message.kv.mod_revision, message.type, message.kv.key, message.kv.value, previous)


def end_of(prefix):
    return prefix[:-1] + bytes([prefix[-1] + 1])


class Log:
    """Everything that is written below a prefix, by one writer that does not go through the proxy."""

    def __init__(self, client, prefix, value=b"v%d"):
        self.client, self.prefix, self.value = client, prefix, value
        self.events = []
        self.values = {}
        self.written = 0

    @property
    def revision(self):
        return self.events[-1].revision

    def key(self, number):
        return self.prefix + b"%d" % number

    def put(self, number=0, value=None):
        return self.txn(puts=[number], value=value)

    def delete(self, number=0):
        return self.txn(deletions=[number])

    def txn(self, puts=(), deletions=(), value=None):
        """All of it is one revision."""
        operations, events = [], []
        for number in puts:
            key = self.key(number)
            self.written += 1
            content = self.value % self.written if value is None else value
            operations.append({"request_put": {"key": key, "value": content}})
            events.append((PUT, key, content, self.values.get(key)))
            self.values[key] = content
        for number in deletions:
            key = self.key(number)
            operations.append({"request_delete_range": {"key": key}})
            if key in self.values:
                events.append((DELETE, key, b"", self.values.pop(key)))
        revision = self.client.ok("KV/Txn", success=operations).header.revision
        self.events += [Event(revision, *event) for event in events]
        return revision

    def elsewhere(self):
        """A revision that is none of this prefix's."""
        return self.client.put(b"elsewhere", b"x").header.revision

    def some(self, count=10):
        """Revisions of all kinds."""
        for number in range(count):
            if number % 5 == 3:
                self.txn(puts=[number % 7, 7, 8], deletions=[(number + 1) % 7])
            elif number % 5 == 4 and self.key(number % 3) in self.values:
                self.delete(number % 3)
            else:
                self.put(number % 7)
            if number % 3 == 0:
                self.elsewhere()

    def seen(self, watcher):
        """What a watcher has to be told, from its start on."""
        fields = watcher.fields
        start = fields.get("start_revision", 0) or watcher.created.header.revision + 1
        key, end = fields["key"], fields.get("range_end", b"")
        hidden = {PUT if each == NOPUT else DELETE for each in fields.get("filters", [])}
        return [event if fields.get("prev_kv") else event._replace(previous=None) for event in self.events
                if event.revision >= start and event.kind not in hidden
                and (event.key == key if not end else key <= event.key and (end == b"\0" or event.key < end))]


class Watcher:
    """One watch: what was asked for and what it was told."""

    def __init__(self, fields):
        self.fields = fields
        self.created = None
        self.canceled = None
        self.events = []
        self.sizes = []         # events of each response
        self.bytes = []
        self.fragments = []
        self.progress = []
        self.is_fragmented = False

    @property
    def id(self):
        return self.created.watch_id

    @property
    def next_revision(self):
        """Where to go on after a break."""
        if self.events:
            return self.events[-1].revision + 1
        return self.fields.get("start_revision", 0) or self.created.header.revision + 1

    def take(self, response):
        assert not self.canceled, f"after its cancellation: {response}"
        if response.events:
            found = [event_of(event) for event in response.events]
            order = [event.revision for event in self.events[-1:] + found]
            assert order == sorted(order), f"out of order: {order}"
            if self.events and not self.is_fragmented:
                assert found[0].revision > self.events[-1].revision, "a revision in two responses"
            assert response.header.revision >= found[-1].revision
            self.events += found
            self.sizes.append(len(found))
            self.bytes.append(response.ByteSize())
            self.fragments.append(response.fragment)
            self.is_fragmented = response.fragment
        elif not response.canceled:
            self.progress.append(response.header.revision)
        if response.canceled:
            self.canceled = response


class Watches:
    """A Watch stream. Like etcd's own client it knows a watch by the order of the `created`."""

    def __init__(self, client, *creates, metadata=()):
        self.stream = client.stream("Watch/Watch", metadata=metadata, timeout=None)
        self.waiting = collections.deque()
        self.all = []
        self.by_id = {}
        self.answers = []       # of requests for progress: revision, and how many events each watch had
        self.told = []          # what kind of response came, one after the other
        for fields in creates:
            self.create(**fields)

    # What the client says

    def create(self, **fields):
        watcher = Watcher(fields)
        self.waiting.append(watcher)
        self.all.append(watcher)
        self._send(create_request=fields)
        return watcher

    def cancel(self, identifier):
        self._send(cancel_request={"watch_id": identifier})

    def ask_for_progress(self):
        self._send(progress_request={})

    def half_close(self):
        self.stream.half_close()

    def close(self):
        self.stream.cancel()

    def _send(self, **fields):
        self.stream.send(request("Watch/Watch", **fields))

    # What it hears

    def until(self, check, seconds=SECONDS):
        while not check():
            if not self.take(seconds):
                raise AssertionError(f"the stream ended: {self.stream.ended}")
        return self

    def created(self):
        """Until all that were asked for are there."""
        return self.until(lambda: not self.waiting)

    def sees(self, log, seconds=SECONDS):
        """Until every watch has been told as much as it has to be; and then it must be just that."""
        self.created()
        for watcher in self.all:
            if not watcher.canceled:
                expected = log.seen(watcher)
                self.until(lambda: len(watcher.events) >= len(expected), seconds)
                assert watcher.events == expected
        return self

    def take(self, seconds=SECONDS):
        response = self.stream.next(seconds)
        if response is not None:
            self._enter(response)
        return response

    def _enter(self, response):
        header = response.header
        self.told.append((response.created, response.canceled, response.watch_id, response.cancel_reason,
                          response.compact_revision, len(response.events)))
        if response.created:
            assert self.waiting, f"nobody asked for it: {response}"
            watcher = self.waiting.popleft()
            watcher.created = response
            if response.canceled:
                watcher.canceled = response
            else:
                assert response.watch_id not in self.by_id or self.by_id[response.watch_id].canceled
                self.by_id[response.watch_id] = watcher
        elif response.watch_id == ALL_WATCHES and not response.canceled and not response.events:
            self.answers.append((header.revision, [(each, len(each.events)) for each in self.all if each.created]))
        else:
            assert response.watch_id in self.by_id, f"nobody's: {response}"
            self.by_id[response.watch_id].take(response)

    def check_answers(self, log):
        """Nothing up to the revision of an answer may have come after it."""
        for revision, counts in self.answers:
            for watcher, count in counts:
                if not watcher.canceled:
                    expected = sum(event.revision <= revision for event in log.seen(watcher))
                    assert count >= expected, f"{count} of {expected} events before progress {revision}"


class StuckWatch(RawClient):
    """A watch whose client reads nothing until it is told to; HTTP/2's first windows are all it gives."""

    def __init__(self, address, **fields):
        super().__init__(address)
        head, self.stream = self.call(METHODS["Watch/Watch"].path, request("Watch/Watch", create_request=fields))
        self.send(head)
        self.watcher = Watcher(fields)
        self.rest = b""
        self.read(lambda: self.watcher.created)

    def wake(self):
        """From now on it reads without a limit."""
        wide = struct.pack(">I", 1 << 30)
        self.send(frame(WINDOW_UPDATE, 0, 0, wide), frame(WINDOW_UPDATE, 0, self.stream, wide))

    def read(self, check):
        for kind, flags, stream, payload in self.frames():
            if kind == SETTINGS and not flags & ACK:
                self.send(frame(SETTINGS, ACK, 0))
            elif kind == DATA and stream == self.stream:
                self.rest += payload
                self._messages()
            if check():
                return
        raise AssertionError("the connection ended")

    def _messages(self):
        while len(self.rest) >= 5 and len(self.rest) >= 5 + (size := int.from_bytes(self.rest[1:5], "big")):
            body, self.rest = self.rest[5:5 + size], self.rest[5 + size:]
            response = METHODS["Watch/Watch"].response.FromString(body)
            if response.created:
                assert not self.watcher.created
                self.watcher.created = response
            else:
                self.watcher.take(response)
