"""What librdkafka's consumer and producer share: connecting, and the translation of errors to kafka-python's."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException
from kafka import errors as kafka_errors

from stream_ad.brokers.kafka.connection import REQUEST_MS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ad.settings import Settings

LOGGER = logging.getLogger("kafka.librdkafka")  # filtered like the log of kafka-python

_LOCAL: dict[int, type[kafka_errors.KafkaError]] = {
    KafkaError._TIMED_OUT: kafka_errors.KafkaTimeoutError,  # noqa: SLF001 -- how the library names its own errors
    KafkaError._TIMED_OUT_QUEUE: kafka_errors.KafkaTimeoutError,  # noqa: SLF001
    KafkaError._MSG_TIMED_OUT: kafka_errors.KafkaTimeoutError,  # noqa: SLF001
    KafkaError._PURGE_INFLIGHT: kafka_errors.KafkaTimeoutError,  # noqa: SLF001
    KafkaError._PURGE_QUEUE: kafka_errors.KafkaTimeoutError,  # noqa: SLF001
    KafkaError._TRANSPORT: kafka_errors.KafkaConnectionError,  # noqa: SLF001
    KafkaError._ALL_BROKERS_DOWN: kafka_errors.KafkaConnectionError,  # noqa: SLF001
    KafkaError._DESTROY_BROKER: kafka_errors.KafkaConnectionError,  # noqa: SLF001 -- a request to a broker that went away
    KafkaError._RESOLVE: kafka_errors.KafkaConnectionError,  # noqa: SLF001
    KafkaError._SSL: kafka_errors.KafkaConnectionError,  # noqa: SLF001
    KafkaError._WAIT_COORD: kafka_errors.CoordinatorNotAvailableError,  # noqa: SLF001
    KafkaError._MAX_POLL_EXCEEDED: kafka_errors.RetriableError,  # noqa: SLF001 -- joins again by itself
    KafkaError._AUTHENTICATION: kafka_errors.SaslAuthenticationFailedError,  # noqa: SLF001
    KafkaError._FENCED: kafka_errors.ProducerFencedError,  # noqa: SLF001
    KafkaError._ASSIGNMENT_LOST: kafka_errors.CommitFailedError,  # noqa: SLF001
    KafkaError._UNKNOWN_TOPIC: kafka_errors.UnknownTopicOrPartitionError,  # noqa: SLF001
    KafkaError._UNKNOWN_PARTITION: kafka_errors.UnknownTopicOrPartitionError,  # noqa: SLF001
    KafkaError._AUTO_OFFSET_RESET: kafka_errors.OffsetOutOfRangeError,  # noqa: SLF001
    KafkaError._LOG_TRUNCATION: kafka_errors.LogTruncationError,  # noqa: SLF001
    KafkaError._NOT_IMPLEMENTED: kafka_errors.UnsupportedCodecError,  # noqa: SLF001
}


class ConnectionMonitor:
    """A receiver of the library's log, which is the only place where it reports every broken connection."""

    def __init__(self) -> None:
        self.broken = ""
        self.broken_at = float("-inf")  # monotonic seconds

    def log(self, level: int, form: str, event: str, client: str, text: str) -> None:
        """Forward a line of the log, and note a broken connection; the library calls this on the polling thread."""
        LOGGER.log(level, form, event, client, text)
        if event == "FAIL" and "in state UP" in text:  # other connections were never up: one address of several
            self.broken, self.broken_at = text, time.monotonic()


def common_config(settings: Settings) -> dict[str, Any]:
    """Return the configuration that consumers, producers and admin clients have in common."""
    security, password = settings.broker.security, settings.broker.security.password
    config = {
        "bootstrap.servers": ",".join(server.strip() for server in settings.broker.bootstrap_servers.split(",")),
        "client.id": settings.application_id,
        "allow.auto.create.topics": False,
        "reconnect.backoff.max.ms": 1000,
        "socket.timeout.ms": REQUEST_MS,
        "security.protocol": security.protocol,
        "ssl.ca.location": security.ca_file,
        "ssl.certificate.location": security.certificate_file,
        "ssl.key.location": security.key_file,
        "sasl.mechanism": security.mechanism,
        "sasl.username": security.username,
        "sasl.password": password.get_secret_value() if password else None,
        "logger": LOGGER,
    }
    return {name: value for name, value in config.items() if value is not None}


def translate(error: KafkaError) -> kafka_errors.KafkaError:
    """Return kafka-python's error for an error of librdkafka.

    Each of Kafka's error codes has a class in kafka-python; the library's own codes are negative (``_LOCAL``).
    """
    code, text = error.code(), error.str()
    if code == KafkaError._FATAL and "group.instance.id" in text:  # noqa: SLF001 -- only the text says which error it was
        kind = kafka_errors.FencedInstanceIdError
    else:
        kind = kafka_errors.for_code(code) if code >= 0 else _LOCAL.get(code, kafka_errors.KafkaError)
    return kind(f"{text} ({error.name()})")


@contextmanager
def translated_errors() -> Iterator[None]:
    """Translate the library's errors to kafka-python's.

    Raises:
        KafkaError: For any error of the library, or where the client was closed.
    """
    try:
        yield
    except KafkaException as error:
        raise translate(error.args[0]) from error
    except SystemError as error:  # raised where the client ends during delivery reports, with or without a cause
        if isinstance(error.__cause__, KafkaException):
            raise translate(error.__cause__.args[0]) from error
        raise kafka_errors.KafkaError(str(error)) from error
    except RuntimeError as error:  # the client was closed
        raise kafka_errors.KafkaError(str(error)) from error
