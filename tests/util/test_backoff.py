"""Backoff between attempts, and the time after which a failure is final."""

from __future__ import annotations

import pytest

from stream_ad.errors import BrokerError
from stream_ad.testing import ManualClock
from stream_ad.util.backoff import LONGEST_WAIT_S, RetryPolicy

ERROR = BrokerError("refused", hint="Ask again.")


def test_waits_grow_and_stay_bounded():
    """Each failure waits longer than the previous one, up to a few seconds, and reports that it waits."""
    clock = ManualClock()
    retries = RetryPolicy("It", give_up_s=60, clock=clock)
    assert not retries.waiting
    waits = []
    for _ in range(10):
        waits.append(retries.failed(ERROR))
        assert retries.waiting
        clock.advance(waits[-1])
        assert not retries.waiting
    assert waits == sorted(waits)
    assert waits[0] < 1 < waits[-1] == LONGEST_WAIT_S


def test_failures_for_too_long_are_final():
    """Failures that last longer than allowed raise an error with what was tried and for how long."""
    clock = ManualClock()
    retries = RetryPolicy("It", give_up_s=10, clock=clock)
    retries.failed(ERROR)
    clock.advance(9)
    retries.failed(ERROR)
    clock.advance(2)
    with pytest.raises(BrokerError, match=r"It has failed for 11 s: refused Ask again\."):
        retries.failed(ERROR)


@pytest.mark.parametrize("between", ["success", "pause"])
def test_only_failures_in_a_row_add_up(between):
    """A success, or a pause as long as the limit, resets the time of failures."""
    clock = ManualClock()
    retries = RetryPolicy("It", give_up_s=10, clock=clock)
    retries.failed(ERROR)
    if between == "success":
        clock.advance(9)
        retries.succeeded()
        assert not retries.waiting
        clock.advance(9)
    else:
        clock.advance(11)
    first = retries.failed(ERROR)
    clock.advance(9)
    assert retries.failed(ERROR) > first
