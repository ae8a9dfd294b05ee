"""kafka-python's network part, told what gets lost on the way to it, and watched for why it cannot connect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient

from stream_ad.brokers.kafka.connection import METADATA_BACKOFF_MS, REFUSED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class _HungUp(kafka_errors.SaslAuthenticationFailedError):  # type: ignore[misc]
    """A broker ended the connection in the middle of a login: it refuses, and its answer was lost with the end."""


_ENOUGH = 3  # times that a broker hangs up on a login: one that is about to stop does so once


class Attempts:
    """Makes the client's network part as it was asked for, and remembers why it could not connect.

    The client itself tries until its time is over and then says only that.
    """

    def __init__(self) -> None:
        self.last: BaseException | None = None
        self.hang_ups = 0  # in the middle of a login

    def __call__(self, **options: Any) -> KafkaNetClient:
        client = KafkaNetClient(**options)
        # The client loses these two of its own options on the way: a missing topic would be made with whatever number
        # of partitions, and every step of finding out where topics are would take 100 ms.
        client._manager.cluster.config |= {  # noqa: SLF001
            "allow_auto_create_topics": False,
            "retry_backoff_ms": METADATA_BACKOFF_MS,
        }
        # Warns of each step of the client's own loop that takes a tenth of a second: nothing that anybody can act on.
        client._net.config["slow_task_threshold_secs"] = 0  # noqa: SLF001
        connection_to = client._manager.get_connection  # noqa: SLF001

        def watched(*arguments: Any, **more: Any) -> Any:
            if isinstance(self.last, REFUSED) and (not isinstance(self.last, _HungUp) or self.hang_ups >= _ENOUGH):
                raise self.last  # to knock again would only delay what the broker has said
            try:
                connection = connection_to(*arguments, **more)
            except kafka_errors.UnknownBrokerIdError:  # one that came since, or the -1 of a partition without a leader
                client._manager.cluster.request_update()  # noqa: SLF001 -- it would ask the next time in minutes
                raise
            hung_up: list[bool] = []
            connection.init_future.add_errback(lambda error: None if hung_up else self._note(error))
            connection._sasl_authenticate = self._noted(connection._sasl_authenticate, hung_up)  # noqa: SLF001
            return connection

        client._manager.get_connection = watched  # noqa: SLF001
        return client

    def _noted(self, log_in: Callable[..., Awaitable[None]], hung_up: list[bool]) -> Callable[..., Awaitable[None]]:
        """A refusal comes together with the end of the connection, which the client may see first."""

        async def logging_in(*arguments: Any, **more: Any) -> None:
            try:
                await log_in(*arguments, **more)
            except kafka_errors.KafkaConnectionError:
                hung_up.append(True)
                self.hang_ups += 1
                self._note(_HungUp("the broker hung up in the middle of it"))
                raise
            except Exception as error:
                self._note(error)
                raise

        return logging_in

    def _note(self, error: BaseException) -> None:
        if self.last is None or (_weight(error) >= _weight(self.last)):
            self.last = error


def _weight(error: BaseException) -> int:
    """How much an attempt's end says: the last one is often only cut short by the end of all waiting."""
    if isinstance(error, REFUSED) and not isinstance(error, _HungUp):
        return 2
    return 0 if isinstance(error, kafka_errors.RequestTimedOutError) else 1
