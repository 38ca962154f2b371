"""Watch: progress, asked for and periodic (every 200 ms in these tests)."""

from support.schema import Rev

from conformance.case import Group
from conformance.watch_cases import KEY, PREFIX, put, write

group = Group("progress")


@group.case()
def asked_for(run):
    watch = run.watch(PREFIX).created()
    watch.ask_for_progress()
    watch.progress()
    write(run)
    watch.events(5)
    watch.ask_for_progress()
    watch.progress(2)


@group.case()
def asked_for_without_a_watch(run):
    """What etcd says then, and that the stream is still good."""
    watch = run.watch()
    watch.ask_for_progress()
    watch.create(**KEY)
    watch.created()
    put(run)
    watch.events(1)


@group.case()
def asked_for_after_the_last_watch_was_cancelled(run):
    watch = run.watch(KEY).created()
    watch.cancel(0)
    watch.canceled()
    watch.ask_for_progress()
    watch.create(**KEY)
    watch.created(2)


@group.case()
def revision_of_writes_elsewhere(run):
    """Progress goes on although nothing happens in the range."""
    watch = run.watch(KEY).created()
    put(run, b"elsewhere")
    put(run, b"elsewhere")
    watch.ask_for_progress()
    watch.progress()


@group.case()
def never_ahead_of_events(run):
    """What is asked for right after a write comes after its event."""
    watch = run.watch(PREFIX, PREFIX).created(2)
    for number in range(20):
        put(run, b"k%d" % number)
        watch.ask_for_progress()
        watch.progress(number + 1)
        run.note("order", events_before=watch.counts["events"])


@group.case()
def future_watch_beside(run):
    """A watch that waits for a later revision holds nobody up."""
    watch = run.watch(KEY, {**KEY, "start_revision": Rev(100)}).created(2)
    watch.ask_for_progress()
    watch.progress()


@group.case(slow=True)
def periodic(run):
    """For the watch that wants it, with its own id; not for the other."""
    watch = run.watch(KEY, {**PREFIX, "progress_notify": True}).created(2)
    watch.periodic(3)
    run.note("periodic", ids=sorted(watch.periodic_ids))
    put(run, b"elsewhere")
    put(run)
    watch.events(2)
