"""The first connection of a worker to Kafka, awaited for as long as it takes."""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING

import structlog
from kafka import KafkaAdminClient

from stream_ad.brokers.kafka.connection import connect
from stream_ad.errors import UnreachableError
from stream_ad.util.backoff import FIRST_WAIT_S, LONGEST_WAIT_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ad.settings import Settings

_POLL_INTERVAL_S = 0.05  # between checks whether the worker is to stop

log = structlog.get_logger(__name__)


class _Attempt(Thread):
    """An attempt to connect, on a thread that can be abandoned: the client cannot be told to stop trying."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="first contact", daemon=True)
        self._settings = settings
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Connect, and keep the error where that fails."""
        try:
            connect(KafkaAdminClient, self._settings).close()
        except BaseException as error:  # noqa: BLE001 -- the waiting thread raises it
            self.error = error


def await_kafka(settings: Settings, wait: Callable[[float], bool], tell: Callable[[str], None]) -> bool:
    """See ``brokers.await_broker``."""
    pause_s, problem = FIRST_WAIT_S, ""
    while True:
        attempt = _Attempt(settings)
        while attempt.is_alive():
            attempt.join(_POLL_INTERVAL_S)
            tell(problem)
            if wait(0.0):
                return False
        if attempt.error is None:
            tell("")
            return True
        if not isinstance(attempt.error, UnreachableError):
            raise attempt.error
        problem = attempt.error.what
        log.warning("Waiting for Kafka", error=str(attempt.error), retry_in_seconds=pause_s)
        if wait(pause_s):
            return False
        pause_s = min(2 * pause_s, LONGEST_WAIT_S)
