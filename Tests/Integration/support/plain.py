"""Answers as plain values that two runs can be compared by."""

import grpc

REVISIONS = {
    "revision", "create_revision", "mod_revision", "compact_revision", "hash_revision", "rev"}
# Figures that differ between two looks at the same etcd, or between two runs of the same case.
MOVING = {"raftIndex", "raftAppliedIndex", "dbSize", "dbSizeInUse", "token", "authRevision", "hash"}
# Lists without an order.
SETS = {"keys", "members"}
# Seconds that pass: 999 of 1000 is still what was asked for.
SECONDS = {"TTL"}


def plain(message, base):
    """A message as a dictionary of the fields that are set; revisions count from `base`."""
    result = {}
    for field, value in message.ListFields():
        repeated = field.label == field.LABEL_REPEATED
        if field.message_type is not None:
            parts = [plain(part, base) for part in value] if repeated else plain(value, base)
            if field.name in SETS:
                # The order of members follows from their numbers, which are hidden.
                parts.sort(key=lambda part: part.get("name", ""))
            result[field.name] = parts
        elif field.name in REVISIONS:
            result[field.name] = f"{value - base:+}"
        elif field.name in MOVING:
            result[field.name] = "some"
        elif field.name in SECONDS and value >= 100:
            result[field.name] = -(-value // 10) * 10
        else:
            ordered = sorted(value) if field.name in SETS else value
            result[field.name] = list(ordered) if repeated else value
    return result


def without(value, hidden):
    """The same without the contents of the fields named."""
    if isinstance(value, dict):
        return {key: "hidden" if key in hidden else without(part, hidden) for key, part in value.items()}
    if isinstance(value, list):
        return [without(part, hidden) for part in value]
    return value


def status(error_or_call):
    """How a call ended: code, text and all metadata."""
    code = error_or_call.code()
    text = error_or_call.details() or ""
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        text = "whoever noticed first"  # the client's own words or the server's
    return {"code": code.name, "text": text, "trailer": metadata(error_or_call.trailing_metadata())}


def metadata(pairs):
    return sorted((key, value) for key, value in pairs or ())
