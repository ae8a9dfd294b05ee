"""How long a failing thing is tried again."""

from __future__ import annotations

import pytest

from stream_ad.errors import BrokerError
from stream_ad.testing import ManualClock
from stream_ad.util.backoff import LONGEST_WAIT_S, RetryPolicy

ERROR = BrokerError("refused", hint="Ask again.")


def test_waits_grow_and_stay_bounded():
    """Each failure waits longer than the one before, up to a few seconds; nothing is tried while it waits."""
    clock = ManualClock()
    patience = RetryPolicy("It", give_up_s=60, clock=clock)
    assert not patience.waiting
    waits = []
    for _ in range(10):
        waits.append(patience.failed(ERROR))
        assert patience.waiting
        clock.advance(waits[-1])
        assert not patience.waiting
    assert waits == sorted(waits)
    assert waits[0] < 1 < waits[-1] == LONGEST_WAIT_S


def test_failures_for_too_long_are_final():
    """Once the failures have lasted longer than allowed, the error comes out, with what was tried and for how long."""
    clock = ManualClock()
    patience = RetryPolicy("It", give_up_s=10, clock=clock)
    patience.failed(ERROR)
    clock.advance(9)
    patience.failed(ERROR)
    clock.advance(2)
    with pytest.raises(BrokerError, match=r"It has failed for 11 s: refused Ask again\."):
        patience.failed(ERROR)


@pytest.mark.parametrize("between", ["success", "quiet"])
def test_only_failures_in_a_row_add_up(between):
    """A success, or a quiet time as long as the limit, begins the count anew."""
    clock = ManualClock()
    patience = RetryPolicy("It", give_up_s=10, clock=clock)
    patience.failed(ERROR)
    if between == "success":
        clock.advance(9)
        patience.succeeded()
        assert not patience.waiting
        clock.advance(9)
    else:
        clock.advance(11)
    first = patience.failed(ERROR)
    clock.advance(9)
    assert patience.failed(ERROR) > first
