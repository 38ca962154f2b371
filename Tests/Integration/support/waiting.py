"""Waiting for events with a deadline. Nothing in these tests sleeps for a guessed time."""

import time

PATIENCE = 15.0  # seconds; only a failing test ever waits so long


def until(check, seconds=PATIENCE, what="the expected state", pause=0.01):
    """Calls `check` until its result is true and returns that result."""
    deadline = time.monotonic() + seconds
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what} did not come within {seconds} s (last: {result!r})")
        time.sleep(pause)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self):
        self.start = time.monotonic()

    @property
    def seconds(self):
        return time.monotonic() - self.start
