"""What every Kafka client of the program shares: how to connect, and what its errors mean."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from kafka import errors as kafka_errors

from stream_ad.brokers.kafka.first_contact import looked_at, told_early
from stream_ad.brokers.kafka.private_names import fast
from stream_ad.errors import BrokerError, TopicError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kafka import KafkaAdminClient

    from stream_ad.settings import Settings

CONNECT_S = 30.0
"""Longest wait for the first answer of a broker or coordinator; less when broker.give_up_seconds is less."""
SETTLING_S = 10.0
REQUEST_MS = 10_000
HEARTBEAT_S = 1.0  # how soon a worker hears of a rebalance
METADATA_BACKOFF_MS = 10
BATCH_BYTES = 512 * 1024  # one batch per partition is under way at a time: small ones cost a round trip each
MAX_RECORD_BYTES = 64 * 1024 * 1024  # the topic's own max.message.bytes decides
LINGER_MS = 20  # flush ends it; keeps the first few records of a step from going alone
RETRY_BACKOFF_MS = 5  # a transaction right after another one is first told to wait: at 20 that costs 20 ms

Client = TypeVar("Client")
Answer = TypeVar("Answer")


def patience_ms(settings: Settings) -> int:
    """How long to wait for something that a worker tries again by itself."""
    return int(1000 * min(CONNECT_S, settings.broker.give_up_seconds))


def client_options(settings: Settings) -> dict[str, Any]:
    """Options that consumers, producers and admin clients have in common."""
    security = settings.broker.security
    password = security.password
    return {
        "bootstrap_servers": [server.strip() for server in settings.broker.bootstrap_servers.split(",")],
        "client_id": settings.application_id,
        "bootstrap_timeout_ms": patience_ms(settings),
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
    """Make a client and wait until a broker has answered; where that takes long, say why.

    Raises:
        UnreachableError: None has.
        BrokerError: It refuses.
    """
    _require_files(settings)
    attempts: Any = None
    if fast(settings):
        from stream_ad.brokers.kafka.connection_attempts import Attempts  # noqa: PLC0415 -- only where the client is known

        attempts = Attempts()
        options["kafka_client"] = attempts
    servers = settings.broker.bootstrap_servers
    with errors(settings, "connecting"), told_early(servers, lambda: attempts and attempts.last):
        try:
            return make(**client_options(settings) | options)
        except (kafka_errors.KafkaTimeoutError, *REFUSED) as error:
            reason: BaseException = (attempts and attempts.last) or error
            if isinstance(reason, kafka_errors.SaslAuthenticationFailedError):
                raise reason from error
            kind = BrokerError if isinstance(reason, REFUSED) or _UNTRUSTED in str(reason) else UnreachableError
            raise kind(
                f"No Kafka broker answered at {servers} ({looked_at(servers, reason)}).", hint=_hint(reason)
            ) from reason


_UNSETTLED = (
    kafka_errors.CoordinatorNotAvailableError,
    kafka_errors.CoordinatorLoadInProgressError,
    kafka_errors.NotCoordinatorError,
    kafka_errors.LeaderNotAvailableError,
    kafka_errors.NotLeaderForPartitionError,
    kafka_errors.UnknownBrokerIdError,  # its leader has just come, or -1: there is none
    kafka_errors.MetadataEmptyBrokerList,  # the controller had to wait for the brokers' heartbeats
)


def retry_while_unavailable(ask: Callable[[], Answer]) -> Answer:
    """What the coordinator or leader in charge answers, asked again while nobody is: on a Kafka that nobody has used
    yet, for a topic just made, after a restart or a freeze. Clients do not ask all questions again by themselves.
    """
    deadline = time.monotonic() + SETTLING_S
    while True:
        try:
            return ask()
        except _UNSETTLED:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def group_members(client: KafkaAdminClient, group: str) -> list[str]:
    """The machines on which members of a consumer group run, one for each member; none where there is no group."""
    members = retry_while_unavailable(lambda: client.describe_groups([group])[group]["members"])
    return [str(member["client_host"]).lstrip("/") for member in members]


def _require_files(settings: Settings) -> None:
    """The client would only say that some file is missing, each time it tries."""
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
    """Options of kafka-python's producers."""
    timeout_ms = int(settings.broker.transaction_timeout_seconds * 1000)
    return {
        "transactional_id": transactional_id,
        "transaction_timeout_ms": timeout_ms,
        "delivery_timeout_ms": timeout_ms,
        "request_timeout_ms": max(1, timeout_ms // 2),
        "max_block_ms": patience_ms(settings),
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
    """Turn the client's errors into ours."""
    try:
        yield
    except kafka_errors.KafkaError as error:
        raise translated(settings, doing, error) from error


GONE_HINT = (
    "Retention has deleted them, or the topic was made anew. Set broker.on_lost_records=continue to go on with the "
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
        what="Kafka refused the login of «{user}» ({text}).",
        hint="Check username, password and mechanism in broker.security.",
    ),
    _Meaning(
        (kafka_errors.AuthorizationError,),
        what="Kafka does not allow «{user}» what {doing} needs ({text}).",
        hint="Give this user the rights to read, write and describe the topics, the group and the transactional ids "
        "that begin with {application}.",
    ),
    _Meaning(
        (kafka_errors.FencedInstanceIdError,),
        what="Another worker runs under broker.instance_id «{instance}».",
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
        what="Records are compressed in a way that cannot be read here ({text}).",
        hint="Install what reads it: pip install 'kafka-python[snappy,zstd]'.",
    ),
    _Meaning(
        (kafka_errors.RetriableError, kafka_errors.UnknownBrokerIdError),
        what="Kafka at {servers} is not there, or did not answer in time, while {doing} ({text}).",
        hint="Check that Kafka runs and can be reached.",
    ),
    _Meaning(
        (BaseException,),
        what="Kafka failed while {doing}: {kind}: {text}.",
        hint="Look into Kafka's own log.",
    ),
)


def translated(settings: Settings, doing: str, error: BaseException) -> BrokerError:
    """Our error for one of the client's, raised while doing something."""
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
