"""Where Ringway answers otherwise than etcd, on purpose. Everything else has to be the same, field by field.

Each entry: a case, the reason, and where it applies (a function of the way; without it, everywhere). The
case is still played, so that the proxy has to survive it, but its record is not compared."""


class Difference:
    def __init__(self, case, reason, where=None):
        self.case, self.reason, self.where = case, reason, where or (lambda way: True)


def in_namespace(way):
    return bool(way.namespace)


def in_release(release):
    return lambda way: way.place.release == release


TABLE: list[Difference] = [
    Difference("call: compressed", "a compressed message cannot be looked into: the proxy takes none in a namespace, as "
               "etcd 3.4 takes none at all", in_namespace),
    Difference("call: truncated message", "refused alike, in words that etcd has for another flaw", in_namespace),
    Difference("call: wrong wire type", "refused alike, in words that etcd has for another flaw", in_namespace),
    Difference("call: endless number", "refused alike, in words that etcd has for another flaw", in_namespace),
    Difference("watch: broken request", "refused alike, in words that etcd has for another flaw"),
    Difference("progress: asked for without a watch", "asked on a stream of its own, so that the answer may come behind that "
               "to a later request", in_release("3.4")),
    Difference("progress: asked for after the last watch was cancelled", "the same", in_release("3.4")),
    Difference("lock: unlock of nothing", "an empty key is InvalidArgument everywhere; etcd's lock service says Unknown",
               in_namespace),
    Difference("election: without a leader", "a leader key that is missing is told from one that is empty", in_namespace),
    Difference("cluster: learner comes and goes", "etcd makes the new member's number of the second in which it is asked, so "
               "that adding it twice fails for one of two reasons"),
]


def find(case, way):
    for entry in TABLE:
        if entry.case == case.name and entry.where(way):
            return entry
    return None
