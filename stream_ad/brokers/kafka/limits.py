"""A time limit for client calls that may not return."""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING

from kafka import errors as kafka_errors

if TYPE_CHECKING:
    from collections.abc import Callable

GRACE_S = 1.0  # for a call that ends by itself at its own limit


def within(timeout_s: float, call: Callable[..., object], *arguments: object) -> None:
    """Call a function on a thread, and wait for its end no longer than the limit.

    kafka-python's transactional calls have no limit of their own. librdkafka's do not keep theirs where connections
    break during the call (seen with ``send_offsets_to_transaction`` of 2.16). Then the waiting thread is abandoned
    together with the producer, which the next producer with its transactional id fences.

    Args:
        timeout_s: Seconds that the call may take; ``GRACE_S`` is added.
        call: The function.
        *arguments: Its arguments.

    Raises:
        KafkaTimeoutError: The call did not return in time.
    """
    raised: list[BaseException | None] = []

    def run() -> None:
        try:
            call(*arguments)
        except BaseException as error:  # noqa: BLE001 -- raised below
            raised.append(error)
        else:
            raised.append(None)

    thread = Thread(target=run, name=getattr(call, "__name__", "client"), daemon=True)
    thread.start()
    thread.join(timeout_s + GRACE_S)
    if not raised:
        raise kafka_errors.KafkaTimeoutError(f"no answer of a coordinator in {timeout_s:g} s")
    if raised[0] is not None:
        raise raised[0]
