"""What librdkafka's consumer and producer share: how to connect, and what their errors are in kafka-python's words."""

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

LOGGER = logging.getLogger("kafka.librdkafka")  # as quiet as the other client

_LOCAL: dict[int, type[kafka_errors.KafkaError]] = {
    KafkaError._TIMED_OUT: kafka_errors.KafkaTimeoutError,  # noqa: SLF001 -- how the library names its own errors
    KafkaError._TIMED_OUT_QUEUE: kafka_errors.KafkaTimeoutError,  # noqa: SLF001
    KafkaError._MSG_TIMED_OUT: kafka_errors.KafkaTimeoutError,  # noqa: SLF001
    KafkaError._PURGE_INFLIGHT: kafka_errors.KafkaTimeoutError,  # noqa: SLF001
    KafkaError._PURGE_QUEUE: kafka_errors.KafkaTimeoutError,  # noqa: SLF001
    KafkaError._TRANSPORT: kafka_errors.KafkaConnectionError,  # noqa: SLF001
    KafkaError._ALL_BROKERS_DOWN: kafka_errors.KafkaConnectionError,  # noqa: SLF001
    KafkaError._DESTROY_BROKER: kafka_errors.KafkaConnectionError,  # noqa: SLF001 -- a question to one that went away
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
    """The library's log, where it says that a connection broke; no other way of its own tells of each."""

    def __init__(self) -> None:
        self.broken = ""
        self.broken_at = float("-inf")  # monotonic seconds

    def log(self, level: int, form: str, what: str, client: str, text: str) -> None:
        """The library calls it, on the thread that polls, for every line."""
        LOGGER.log(level, form, what, client, text)
        if what == "FAIL" and "in state UP" in text:  # others never stood: of several addresses of a name, say
            self.broken, self.broken_at = text, time.monotonic()


def common_config(settings: Settings) -> dict[str, Any]:
    """Configuration that consumers, producers and admin clients have in common."""
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


def in_our_words(error: KafkaError) -> kafka_errors.KafkaError:
    """Kafka's own error codes have a class of kafka-python each; the library's own ones are below zero."""
    code, text = error.code(), error.str()
    if code == KafkaError._FATAL and "group.instance.id" in text:  # noqa: SLF001 -- which error it was stands in the text
        kind = kafka_errors.FencedInstanceIdError
    else:
        kind = kafka_errors.for_code(code) if code >= 0 else _LOCAL.get(code, kafka_errors.KafkaError)
    return kind(f"{text} ({error.name()})")


@contextmanager
def translated_errors() -> Iterator[None]:
    """Let what the library raises be raised in kafka-python's words."""
    try:
        yield
    except KafkaException as error:
        raise in_our_words(error.args[0]) from error
    except SystemError as error:  # how it tells of its end in the middle of reports on records, with a reason or none
        if isinstance(error.__cause__, KafkaException):
            raise in_our_words(error.__cause__.args[0]) from error
        raise kafka_errors.KafkaError(str(error)) from error
    except RuntimeError as error:  # it was closed
        raise kafka_errors.KafkaError(str(error)) from error
