"""Where Ringway answers otherwise than etcd, on purpose. Everything else has to be the same, field by field.

Each entry: a case, the reason, and where it applies (a function of the way; without it, everywhere). The
case is still played, so that the proxy has to survive it, but its record is not compared."""


class Difference:
    def __init__(self, case, reason, where=None):
        self.case, self.reason, self.where = case, reason, where or (lambda way: True)


TABLE: list[Difference] = []


def find(case, way):
    for entry in TABLE:
        if entry.case == case.name and entry.where(way):
            return entry
    return None
