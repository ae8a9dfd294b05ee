"""What all Kafka clients of the program share: connecting, options, and the translation of errors."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from kafka import errors as kafka_errors

from stream_ad.brokers.kafka.first_contact import describe_addresses, warn_when_slow
from stream_ad.brokers.kafka.private_names import may_use_private_names
from stream_ad.errors import BrokerError, TopicError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kafka import KafkaAdminClient

    from stream_ad.settings import Settings

CONNECT_S = 30.0
"""Longest wait for the first answer of a broker or coordinator; less when broker.give_up_seconds is less."""
UNAVAILABLE_S = 10.0  # a partition or group without a leader or coordinator is asked about for so long
REQUEST_MS = 10_000  # for one request of a consumer or admin client
HEARTBEAT_S = 1.0  # how soon a worker learns of a rebalance
METADATA_BACKOFF_MS = 10
BATCH_BYTES = 512 * 1024  # one batch per partition is in flight at a time: small ones cost a round trip each
MAX_RECORD_BYTES = 64 * 1024 * 1024  # the topic's own max.message.bytes decides
LINGER_MS = 20  # until flush; keeps the first few records of a step from being sent alone
RETRY_BACKOFF_MS = 5  # a transaction right after another one is rejected once: a backoff of 20 would cost 20 ms

Client = TypeVar("Client")
Answer = TypeVar("Answer")


def connect_timeout_ms(settings: Settings) -> int:
    """Return how long to wait, in milliseconds, for something that a worker retries anyway."""
    return int(1000 * min(CONNECT_S, settings.broker.give_up_seconds))


def client_options(settings: Settings) -> dict[str, Any]:
    """Return the options that consumers, producers and admin clients have in common."""
    security = settings.broker.security
    password = security.password
    return {
        "bootstrap_servers": [server.strip() for server in settings.broker.bootstrap_servers.split(",")],
        "client_id": settings.application_id,
        "bootstrap_timeout_ms": connect_timeout_ms(settings),
        "reconnect_backoff_max_ms": 1000,
        "retry_backoff_ms": RETRY_BACKOFF_MS,
        "security_protocol": security.protocol,
        "ssl_cafile": security.ca_file,
        "ssl_certfile": security.certificate_file,
        "ssl_keyfile": security.key_file,
        "sasl_mechanism": security.mechanism,
        "sasl_plain_username": security.username,
        "sasl_plain_password": password.get_secret_value() if password else None,
    }


REFUSED = (kafka_errors.SaslAuthenticationFailedError, kafka_errors.UnsupportedSaslMechanismError)

_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


def connect(make: Callable[..., Client], settings: Settings, **options: Any) -> Client:
    """Create a client and wait until a broker has answered; log the reason where that takes long.

    Args:
        make: The client's class.
        settings: ``broker`` says where to connect.
        **options: Options of the client beside ``client_options``.

    Raises:
        UnreachableError: No broker has answered.
        BrokerError: A broker refuses the connection, or a file of ``broker.security`` cannot be read.
    """
    _require_files(settings)
    attempts: Any = None
    if may_use_private_names(settings):
        from stream_ad.brokers.kafka.connection_attempts import Attempts  # noqa: PLC0415 -- only where the client's version is supported

        attempts = Attempts()
        options["kafka_client"] = attempts
    servers = settings.broker.bootstrap_servers
    with errors(settings, "connecting"), warn_when_slow(servers, lambda: attempts and attempts.last):
        try:
            return make(**client_options(settings) | options)
        except (kafka_errors.KafkaTimeoutError, *REFUSED) as error:
            reason: BaseException = (attempts and attempts.last) or error
            if isinstance(reason, kafka_errors.SaslAuthenticationFailedError):
                raise reason from error
            kind = BrokerError if isinstance(reason, REFUSED) or _UNTRUSTED in str(reason) else UnreachableError
            raise kind(
                f"No Kafka broker answered at {servers} ({describe_addresses(servers, reason)}).", hint=_hint(reason)
            ) from reason


_UNAVAILABLE = (
    kafka_errors.CoordinatorNotAvailableError,
    kafka_errors.CoordinatorLoadInProgressError,
    kafka_errors.NotCoordinatorError,
    kafka_errors.LeaderNotAvailableError,
    kafka_errors.NotLeaderForPartitionError,
    kafka_errors.UnknownBrokerIdError,  # the leader has just started, or there is none (-1)
    kafka_errors.MetadataEmptyBrokerList,  # the controller still waits for the brokers' heartbeats
)


def retry_while_unavailable(ask: Callable[[], Answer]) -> Answer:
    """Return the answer of the responsible coordinator or leader, asking again for up to ``UNAVAILABLE_S`` without one.

    There may be none in a new Kafka cluster, for a topic just created, after a restart or a freeze. Clients do not
    retry all requests by themselves.
    """
    deadline = time.monotonic() + UNAVAILABLE_S
    while True:
        try:
            return ask()
        except _UNAVAILABLE:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def group_members(client: KafkaAdminClient, group: str) -> list[str]:
    """Return the hosts on which the members of a consumer group run, one entry per member; empty without a group."""
    members = retry_while_unavailable(lambda: client.describe_groups([group])[group]["members"])
    return [str(member["client_host"]).lstrip("/") for member in members]


def _require_files(settings: Settings) -> None:
    """Raise BrokerError for an unreadable file; the client would only report, repeatedly, that some file is missing."""
    for name in ("ca_file", "certificate_file", "key_file"):
        path = getattr(settings.broker.security, name)
        if path is not None and not os.access(path, os.R_OK):
            raise BrokerError(f"The file {path} cannot be read.", hint=f"Check broker.security.{name}.")


def _hint(reason: BaseException) -> str:
    if isinstance(reason, kafka_errors.UnsupportedSaslMechanismError):
        return "Set broker.security.mechanism to one that the listener offers."
    if _UNTRUSTED in str(reason):
        return "Set broker.security.ca_file to the authority that signed the brokers' certificates."
    return (
        "Check broker.bootstrap_servers, that Kafka runs there, and that broker.security fits the listener: one that "
        "is not content with protocol, mechanism, username or password may just hang up."
    )


def producer_options(settings: Settings, transactional_id: str) -> dict[str, Any]:
    """Return the options of kafka-python's producers."""
    timeout_ms = int(settings.broker.transaction_timeout_seconds * 1000)
    return {
        "transactional_id": transactional_id,
        "transaction_timeout_ms": timeout_ms,
        "delivery_timeout_ms": timeout_ms,
        "request_timeout_ms": max(1, timeout_ms // 2),
        "max_block_ms": connect_timeout_ms(settings),
        "acks": "all",
        "compression_type": "lz4",
        "batch_size": BATCH_BYTES,
        "linger_ms": min(LINGER_MS, timeout_ms // 4),
        "max_request_size": MAX_RECORD_BYTES,
        "allow_auto_create_topics": False,
        "metrics_enabled": False,
    }


@contextmanager
def errors(settings: Settings, doing: str) -> Iterator[None]:
    """Translate the client's errors into the program's.

    Args:
        settings: For the messages.
        doing: What is done inside, for the messages: "reading the topics".

    Raises:
        BrokerError: For any KafkaError.
    """
    try:
        yield
    except kafka_errors.KafkaError as error:
        raise translated(settings, doing, error) from error


GONE_HINT = (
    "Retention has deleted them, or the topic was recreated. Set broker.on_lost_records=continue to go on with the "
    "oldest records kept, and give topics.retention_seconds more time."
)


class _Meaning(NamedTuple):
    causes: tuple[type[BaseException], ...]
    what: str
    hint: str
    kind: type[BrokerError] = BrokerError


_MEANINGS = (
    _Meaning(
        (kafka_errors.SaslAuthenticationFailedError,),
        what="Kafka refused the login of '{user}' ({text}).",
        hint="Check username, password and mechanism in broker.security.",
    ),
    _Meaning(
        (kafka_errors.AuthorizationError,),
        what="Kafka does not allow '{user}' what {doing} needs ({text}).",
        hint="Give this user the rights to read, write and describe the topics, the group and the transactional ids "
        "that begin with {application}.",
    ),
    _Meaning(
        (kafka_errors.FencedInstanceIdError,),
        what="Another worker runs under broker.instance_id '{instance}'.",
        hint="Give every worker an instance_id of its own.",
    ),
    _Meaning(
        (kafka_errors.UnknownTopicOrPartitionError,),
        what="A topic is missing ({text}).",
        hint="Run `stream-ad topics apply`.",
        kind=TopicError,
    ),
    _Meaning(
        (kafka_errors.InvalidTimestampError,),
        what="Kafka refused the time of a record ({text}).",
        hint="A topic takes records at most message.timestamp.after.max.ms ahead of its clock (an hour by default): "
        "correct the clock of the source, or raise it for the topic.",
    ),
    _Meaning(
        (kafka_errors.OffsetOutOfRangeError, kafka_errors.LogTruncationError),
        what="Records to be read are gone ({text}).",
        hint=GONE_HINT,
    ),
    _Meaning(
        (kafka_errors.UnsupportedCodecError,),
        what="Records are compressed in a way that this installation cannot read ({text}).",
        hint="Install what reads it: pip install 'kafka-python[snappy,zstd]'.",
    ),
    _Meaning(
        (kafka_errors.RetriableError, kafka_errors.UnknownBrokerIdError),
        what="Kafka at {servers} is unreachable, or did not answer in time, while {doing} ({text}).",
        hint="Check that Kafka runs and can be reached.",
    ),
    _Meaning(
        (BaseException,),
        what="Kafka failed while {doing}: {kind}: {text}.",
        hint="See Kafka's own log.",
    ),
)


def translated(settings: Settings, doing: str, error: BaseException) -> BrokerError:
    """Return the program's error for an error of the client.

    Args:
        settings: For the messages.
        doing: What raised it, for the messages.
        error: The client's error.
    """
    values = {
        "text": str(error) or type(error).__name__,
        "kind": type(error).__name__,
        "doing": doing,
        "servers": settings.broker.bootstrap_servers,
        "user": settings.broker.security.username or "anonymous",
        "application": settings.application_id,
        "instance": settings.broker.instance_id,
    }
    meaning = next(meaning for meaning in _MEANINGS if isinstance(error, meaning.causes))
    return meaning.kind(meaning.what.format(**values), hint=meaning.hint.format(**values))
