"""One run of a case: calls are recorded as plain values, to be compared with another run."""

import grpc

from support.calls import SECONDS, Silence
from support.plain import plain, status, without
from support.schema import METHODS, build
from support.waiting import until

from conformance.watching import WatchStream

EVERYTHING = {"key": b"\0", "range_end": b"\0"}


class Run:
    """What a case has in its hands.

    `tokens` maps a user's name to a token; calls go out as `root` unless they name another with `by`."""

    def __init__(self, client, tokens, hidden=(), login=None):
        self.client = client
        self.tokens = tokens
        self.hidden = hidden
        self.login = login
        self.record = []
        self.base = 0
        self.streams = []

    # Before and after

    def begin(self):
        """An empty store, and the revision that the case counts from.

        It is emptied through the same client, so that whatever caches stand in between know of it."""
        self.quiet("KV/DeleteRange", **EVERYTHING)
        for lease in self.quiet("Lease/LeaseLeases").leases:
            self.quiet("Lease/LeaseRevoke", ID=lease.ID)
        self.base = self.quiet("KV/Range", key=b"base").header.revision

    def end(self):
        for stream in self.streams:
            stream.cancel()

    # Unary calls

    def _credentials(self, by, more=()):
        token = self.tokens.get("root" if by is None else by)
        return [*([("token", token)] if token else []), *more]

    def call(self, name, /, *, raw=None, by=None, metadata=(), hidden=(), path=None, timeout=SECONDS,
             compression=None, **fields):
        """Calls, records, and returns the answer, or None if it failed.

        raw: the request's bytes instead of fields. by: whose token; "nobody" has none. path: instead of the
        method's own. hidden: fields of the answer whose contents are not compared."""
        request = build(METHODS[name].request, fields, self.base) if raw is None else raw
        response, ended = self.client.unary(
            name, request, path=path, metadata=self._credentials(by, metadata), timeout=timeout,
            compression=compression)
        answer = None if response is None else without(plain(response, self.base), {*hidden, *self.hidden})
        self.note(name, answer=answer, **ended)
        return response

    def quiet(self, name, /, *, by=None, **fields):
        """A call that is not recorded and has to succeed."""
        response, ended = self.client.unary(
            name, build(METHODS[name].request, fields, self.base), metadata=self._credentials(by))
        assert ended["code"] == "OK", f"{name}: {ended}"
        return response

    def later(self, name, /, **fields):
        """Calls without waiting for the answer; `record()` does both, `cancel()` gives up."""
        request = build(METHODS[name].request, fields, self.base)
        future = self.client.future(name, request, self._credentials(None))
        return Pending(self, name, future)

    def wait_until_gone(self, key):
        """Until there are no keys with this prefix."""
        end = key[:-1] + bytes([key[-1] + 1])
        until(lambda: self.quiet("KV/Range", key=key, range_end=end, count_only=True).count == 0,
              what=f"the end of {key}")

    def wait_for_keys(self, key, count):
        end = key[:-1] + bytes([key[-1] + 1])
        until(lambda: self.quiet("KV/Range", key=key, range_end=end, count_only=True).count >= count,
              what=f"{count} keys {key}")

    def note(self, what, **values):
        self.record.append({"call": what, **values})

    # Streams

    def stream(self, name, *requests, by=None, metadata=(), timeout=60.0, compression=None):
        """Opens a stream and sends these requests (dictionaries, or bytes as they are)."""
        made = self.client.stream(
            name, *[self.message(name, request) for request in requests],
            metadata=self._credentials(by, metadata), timeout=timeout, compression=compression)
        self.streams.append(made)
        return made

    def message(self, name, request):
        return request if isinstance(request, bytes) else build(METHODS[name].request, request, self.base)

    def watch(self, *creates, **options):
        """A Watch stream with these watches asked for; see WatchStream."""
        return WatchStream(self, self.stream(
            "Watch/Watch", *[{"create_request": create} for create in creates], **options))

    def send(self, stream, **fields):
        stream.send(self.message(stream.name, fields))

    def take(self, stream, count=1, hidden=()):
        """Records the next answers of a stream."""
        taken = []
        for _ in range(count):
            try:
                response = stream.next()
            except Silence as silence:
                self.note(stream.name, silence=str(silence))
                raise
            if response is None:
                self.note(stream.name, **stream.ended)
                break
            taken.append(response)
            self.note(stream.name, answer=without(plain(response, self.base), {*hidden, *self.hidden}))
        return taken

    def finish(self, stream, hidden=()):
        """Records everything up to the end of a stream, and the end."""
        while not stream.ended:
            self.take(stream, hidden=hidden)


class Pending:
    """A unary call under way."""

    def __init__(self, run, name, future):
        self.run, self.name, self.future = run, name, future

    def record(self):
        try:
            response = self.run.client.incoming(self.name, self.future.result(SECONDS))
            answer = plain(response, self.run.base)
        except grpc.FutureTimeoutError:
            self.run.note(self.name, silence="no answer")
            raise Silence(self.name) from None
        except grpc.RpcError:
            answer = None
        self.run.note(self.name, answer=answer, **status(self.future))

    def cancel(self):
        self.future.cancel()
