"""What a namespace means, written down a second time: the oracle for a proxy with --namespace.

A client inside the namespace P sees its keys as if the rest of the store did not exist. Requests go to etcd
with P in front, answers come back without it."""

MOST = b"\0"  # as the end of a range: no end


def prefix_end(prefix):
    """The first key behind all that begin with the prefix."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else MOST


class Namespaced:
    def __init__(self, prefix):
        self.prefix = prefix

    def request(self, name, message):
        """The request as etcd gets it: a changed copy."""
        copy = type(message)()
        copy.CopyFrom(message)
        service, _, call = name.partition("/")
        if name in ["KV/Range", "KV/RangeStream", "KV/DeleteRange", "KV/Put"]:
            self._interval(copy)
        elif name == "KV/Txn":
            self._transaction(copy)
        elif service == "Watch" and copy.WhichOneof("request_union") == "create_request":
            self._watched(copy.create_request)
        elif service == "Lock" or service == "Election":
            for part in [copy, getattr(copy, "leader", None)]:
                names = type(part).DESCRIPTOR.fields_by_name if part is not None else ()
                if "name" in names:
                    part.name = self.prefix + part.name
                if "key" in names and part.key:
                    part.key = self.prefix + part.key
        return copy

    def _interval(self, part):
        # etcd refuses an empty key, inside a namespace too.
        if part.key:
            part.key = self.prefix + part.key
        end = getattr(part, "range_end", b"")
        if end:
            part.range_end = prefix_end(self.prefix) if end == MOST else self.prefix + end

    def _watched(self, create):
        # etcd reads an empty key of a watch as the zero byte.
        create.key = create.key or MOST
        self._interval(create)

    def _transaction(self, message):
        for compare in message.compare:
            self._interval(compare)
        for operation in [*message.success, *message.failure]:
            kind = operation.WhichOneof("request")
            if kind == "request_txn":
                self._transaction(operation.request_txn)
            elif kind:
                self._interval(getattr(operation, kind))

    def response(self, name, message):
        """The answer as a client inside the namespace sees it; changes it in place."""
        if name == "Lease/LeaseTimeToLive":
            inside = [key[len(self.prefix):] for key in message.keys if key.startswith(self.prefix)]
            del message.keys[:]
            message.keys.extend(inside)
        else:
            self._strip(message)

    def _strip(self, message):
        for field, value in message.ListFields():
            if field.name == "key" or (field.name == "name" and field.type == field.TYPE_BYTES):
                assert value.startswith(self.prefix), f"{value} lies outside of {self.prefix}"
                setattr(message, field.name, value[len(self.prefix):])
            elif field.message_type is not None and field.message_type.file.package != "authpb":
                for part in value if field.label == field.LABEL_REPEATED else [value]:
                    self._strip(part)
