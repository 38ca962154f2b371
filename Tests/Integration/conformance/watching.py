"""A Watch stream in a case. How many events etcd puts into a response is a matter of timing, and so is the
order in which watches of one stream have their turn; what each watch is told, and in which order, is not."""

from support.calls import Silence
from support.plain import plain

ALL_WATCHES = -1  # the id in an answer to a request for progress


class WatchStream:
    """Records what each watch was told. Waits with `created`, `events`, `canceled`…"""

    def __init__(self, run, stream):
        self.run = run
        self.stream = stream
        self.told = {}
        self.counts = {"created": 0, "canceled": 0, "events": 0, "progress": 0, "periodic": 0}
        self.periodic_ids = set()
        self.ids = []
        self.sizes = []
        self.fragments = 0
        self.last = {}
        run.note("Watch/Watch", watches=self.told)

    # What the client says

    def create(self, **fields):
        self.run.send(self.stream, create_request=fields)

    def cancel(self, identifier):
        self.run.send(self.stream, cancel_request={"watch_id": identifier})

    def ask_for_progress(self):
        self.run.send(self.stream, progress_request={})

    def half_close(self):
        self.stream.half_close()

    # What it waits for; counts are of the whole stream, from its start

    def created(self, count=1):
        self._until("created", count)
        return self

    def events(self, count):
        self._until("events", count)
        return self

    def canceled(self, count=1):
        self._until("canceled", count)
        return self

    def progress(self, count=1):
        self._until("progress", count)
        return self

    def periodic(self, count=1):
        self._until("periodic", count)
        return self

    def finish(self):
        """Up to the end of the stream."""
        while self._take():
            pass
        self.run.note("Watch/Watch", **self.stream.ended)

    def _until(self, what, count):
        while self.counts[what] < count:
            if not self._take():
                self.run.note("Watch/Watch", ended_without=what, **self.stream.ended)
                raise Silence(f"the stream ended before {what} number {count}: {self.stream.ended}")

    def _take(self):
        try:
            response = self.stream.next()
        except Silence as silence:
            self.run.note("Watch/Watch", silence=str(silence), had=dict(self.counts))
            raise
        if response is not None:
            self._enter(response)
        return response is not None

    def _enter(self, response):
        told = self.told.setdefault(response.watch_id, [])
        self.sizes.append(response.ByteSize())
        self.fragments += response.fragment
        if response.created:
            self.counts["created"] += 1
            self.ids.append(response.watch_id)
        if response.canceled:
            self.counts["canceled"] += 1
        if response.events:
            self.counts["events"] += len(response.events)
            self._check_revisions(response)
            if not (told and "events" in told[-1]):
                told.append({"events": []})
            told[-1]["events"] += plain(response, self.run.base)["events"]
        elif not (response.created or response.canceled) and response.watch_id != ALL_WATCHES:
            # How many of these come is a matter of time.
            self.counts["periodic"] += 1
            self.periodic_ids.add(response.watch_id)
        elif not (response.created or response.canceled):
            self.counts["progress"] += 1
            told.append({"progress": plain(response, self.run.base)})
        if response.created or response.canceled:
            told.append(plain(response, self.run.base))

    def _check_revisions(self, response):
        """Ascending, none newer than the header, none in two responses unless they are fragments."""
        revisions = [event.kv.mod_revision for event in response.events]
        last, is_fragmented = self.last.get(response.watch_id, (0, False))
        is_later = revisions[0] > last or (is_fragmented and revisions[0] == last)
        if revisions != sorted(revisions) or revisions[-1] > response.header.revision or not is_later:
            self.run.note("Watch/Watch", disorder=revisions, header=response.header.revision, before=last)
        self.last[response.watch_id] = revisions[-1], response.fragment
