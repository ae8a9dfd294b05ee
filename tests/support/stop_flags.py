"""Flags that stop a worker in a test, or do not."""

from __future__ import annotations


class Killed(BaseException):
    """Ends a worker at once, without a drain or a snapshot."""


class Never:
    """Never stops a worker; its waits advance the clock."""

    def __init__(self, clock):
        self.clock = clock

    def is_set(self):
        return False

    def wait(self, timeout):
        self.clock.advance(timeout)
        return False


def raiser(error):
    """Return a function that raises the error."""

    def fail(*_):
        raise error

    return fail


def failing_once(call, error):
    """Return the function with a first call that raises the error."""
    errors = [error]

    def attempt(*arguments, **options):
        if errors:
            raise errors.pop()
        return call(*arguments, **options)

    return attempt
