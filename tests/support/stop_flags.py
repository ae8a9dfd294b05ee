"""How a worker in a test is stopped, or not."""

from __future__ import annotations


class Killed(BaseException):
    """Ends a worker on the spot: no drain, no snapshot."""


class Never:
    """Stops nothing; its waits pass on the clock."""

    def __init__(self, clock):
        self.clock = clock

    def is_set(self):
        return False

    def wait(self, timeout):
        self.clock.advance(timeout)
        return False


def raiser(error):
    """A function that raises it."""

    def fail(*_):
        raise error

    return fail


def failing_once(call, error):
    """The same function, but for its first call, which fails."""
    errors = [error]

    def attempt(*arguments, **options):
        if errors:
            raise errors.pop()
        return call(*arguments, **options)

    return attempt
