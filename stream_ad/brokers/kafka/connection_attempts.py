"""kafka-python's network part, given the options that the client loses, and watched for the reason of failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient

from stream_ad.brokers.kafka.connection import METADATA_BACKOFF_MS, REFUSED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class _HungUp(kafka_errors.SaslAuthenticationFailedError):  # type: ignore[misc]
    """A broker closed the connection during a login: it refuses, and its answer was lost with the connection."""


_MAX_HANG_UPS = 3  # of a broker during a login: one that is shutting down does so only once


class Attempts:
    """A factory of the client's network part, which remembers why it could not connect.

    The client itself tries until time is up, and then reports only that.
    """

    def __init__(self) -> None:
        self.last: BaseException | None = None
        self.hang_ups = 0  # during a login

    def __call__(self, **options: Any) -> KafkaNetClient:
        client = KafkaNetClient(**options)
        # The client does not pass on these two of its options: a missing topic would be created with a default number
        # of partitions, and every metadata request would back off for 100 ms.
        client._manager.cluster.config |= {  # noqa: SLF001
            "allow_auto_create_topics": False,
            "retry_backoff_ms": METADATA_BACKOFF_MS,
        }
        # Warns of each step of the client's own event loop that takes a tenth of a second, which nobody can act on.
        client._net.config["slow_task_threshold_secs"] = 0  # noqa: SLF001
        connection_to = client._manager.get_connection  # noqa: SLF001

        def watched(*arguments: Any, **more: Any) -> Any:
            if isinstance(self.last, REFUSED) and (
                not isinstance(self.last, _HungUp) or self.hang_ups >= _MAX_HANG_UPS
            ):
                raise self.last  # another attempt would only delay the broker's answer
            try:
                connection = connection_to(*arguments, **more)
            except (
                kafka_errors.UnknownBrokerIdError
            ):  # a broker that has just joined, or -1 for a partition without a leader
                client._manager.cluster.request_update()  # noqa: SLF001 -- by itself it would ask after minutes
                raise
            hung_up: list[bool] = []
            connection.init_future.add_errback(lambda error: None if hung_up else self._record(error))
            connection._sasl_authenticate = self._recording_login(connection._sasl_authenticate, hung_up)  # noqa: SLF001
            return connection

        client._manager.get_connection = watched  # noqa: SLF001
        return client

    def _recording_login(
        self, log_in: Callable[..., Awaitable[None]], hung_up: list[bool]
    ) -> Callable[..., Awaitable[None]]:
        """Wrap the login: a refusal arrives with the end of the connection, which the client may notice first."""

        async def logging_in(*arguments: Any, **more: Any) -> None:
            try:
                await log_in(*arguments, **more)
            except kafka_errors.KafkaConnectionError:
                hung_up.append(True)
                self.hang_ups += 1
                self._record(_HungUp("the broker closed the connection during the login"))
                raise
            except Exception as error:
                self._record(error)
                raise

        return logging_in

    def _record(self, error: BaseException) -> None:
        if self.last is None or (_weight(error) >= _weight(self.last)):
            self.last = error


def _weight(error: BaseException) -> int:
    """Return how informative an error is: the last one is often only a timeout at the end of all attempts."""
    if isinstance(error, REFUSED) and not isinstance(error, _HungUp):
        return 2
    return 0 if isinstance(error, kafka_errors.RequestTimedOutError) else 1
