"""A case: a name, what it does, and where it applies."""

import itertools
import pprint

ALL = []


class Case:
    def __init__(self, group, name, play, *, since=(3, 0), auth=None, namespace=None, slow=False, hidden=()):
        self.name = f"{group}: {name}"
        self.play = play
        self.since = since
        self.auth = auth
        self.namespace = namespace
        self.slow = slow
        self.hidden = set(hidden)

    def applies(self, place, namespace):
        """Whether it is played there; None means that a property does not matter."""
        if self.slow and (place.tls or place.auth or namespace):
            return False
        return (place.version >= self.since and self.auth in (None, place.auth)
                and self.namespace in (None, bool(namespace)))


class Group:
    """The cases of one file.

    since: first release of etcd that has the call. auth, namespace: True or False where only that
    makes sense.
    slow: not played everywhere. hidden: fields whose contents differ from run to run."""

    def __init__(self, name, **common):
        self.name = name
        self.common = common

    def _add(self, name, play, options):
        assert all(case.name != f"{self.name}: {name}" for case in ALL), name
        ALL.append(Case(self.name, name, play, **{**self.common, **options}))

    def table(self, cases, **options):
        """{name: [(call, fields), …]}: unary calls in a row, each with its answer recorded."""
        for name, steps in cases.items():
            def play(run, steps=steps):
                for call, fields in steps:
                    run.call(call, **fields)

            self._add(name, play, options)

    def functions(self, cases, **options):
        """{name: function of the run}."""
        for name, play in cases.items():
            self._add(name, play, options)

    def case(self, **options):
        """A decorator for what a table cannot say; the case is called like the function."""
        def add(play):
            self._add(play.__name__.replace("_", " "), play, options)
            return play

        return add


def first_difference(expected, found):
    """Where two records part, for the reader of a failure."""
    for number, (one, other) in enumerate(itertools.zip_longest(expected, found)):
        if one != other:
            return (f"call {number + 1}\netcd:\n{pprint.pformat(one, width=100)}\n"
                    f"proxy:\n{pprint.pformat(other, width=100)}")
    return None
