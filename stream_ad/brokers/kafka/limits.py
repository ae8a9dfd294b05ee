"""A limit for calls of a client that may not return."""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING

from kafka import errors as kafka_errors

if TYPE_CHECKING:
    from collections.abc import Callable

GRACE_S = 1.0  # for a call that ends by itself when its time is over


def within(timeout_s: float, call: Callable[..., object], *arguments: object) -> None:
    """Make a call, and wait no longer than the limit for its end.

    kafka-python's transactional calls have no limit of their own. Where connections are cut in the middle of them,
    librdkafka's do not keep to theirs (seen of 2.16's ``send_offsets_to_transaction``). The thread that waits is left
    behind then, with the producer, which is fenced by the next one of its name.

    Raises:
        KafkaTimeoutError: It did not return.
    """
    raised: list[BaseException | None] = []

    def run() -> None:
        try:
            call(*arguments)
        except BaseException as error:  # noqa: BLE001 -- it is raised below
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
