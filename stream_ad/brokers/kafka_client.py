"""What every Kafka client of the program shares: how to connect, and what its errors mean."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient

from stream_ad.errors import BrokerError, TopicError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from kafka import KafkaAdminClient

    from stream_ad.settings import Settings

CONNECT_S = 30.0
"""Longest wait for the first answer of a broker or coordinator; less when broker.give_up_seconds is less."""
SETTLING_S = 10.0
REQUEST_MS = 10_000
HEARTBEAT_S = 1.0  # how soon a worker hears of a rebalance
METADATA_BACKOFF_MS = 10
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


class _HungUp(kafka_errors.SaslAuthenticationFailedError):  # type: ignore[misc]
    """A broker ended the connection in the middle of a login: it refuses, and its answer was lost with the end."""


_ENOUGH = 3  # times that a broker hangs up on a login: one that is about to stop does so once
_REFUSED = (kafka_errors.SaslAuthenticationFailedError, kafka_errors.UnsupportedSaslMechanismError)


class _Attempts:
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
            if isinstance(self.last, _REFUSED) and (not isinstance(self.last, _HungUp) or self.hang_ups >= _ENOUGH):
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
    if isinstance(error, _REFUSED) and not isinstance(error, _HungUp):
        return 2
    return 0 if isinstance(error, kafka_errors.RequestTimedOutError) else 1


def connect(make: Callable[..., Client], settings: Settings, **options: Any) -> Client:
    """Make a client and wait until a broker has answered.

    Raises:
        BrokerError: None has, or it refuses.
    """
    _require_files(settings)
    attempts = _Attempts()
    with errors(settings, "connecting"):
        try:
            return make(**client_options(settings) | options, kafka_client=attempts)
        except (kafka_errors.KafkaTimeoutError, *_REFUSED) as error:
            reason = attempts.last or error
            if isinstance(reason, kafka_errors.SaslAuthenticationFailedError):
                raise reason from error
            raise BrokerError(
                f"No Kafka broker answered at {settings.broker.bootstrap_servers} ({reason}).", hint=_hint(reason)
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


def once_settled(ask: Callable[[], Answer]) -> Answer:
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
    members = once_settled(lambda: client.describe_groups([group])[group]["members"])
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
    if "CERTIFICATE_VERIFY_FAILED" in str(reason):
        return "Set broker.security.ca_file to the authority that signed the brokers' certificates."
    return (
        "Check broker.bootstrap_servers, that Kafka runs there, and that broker.security fits the listener: one that "
        "is not content with protocol, mechanism, username or password may just hang up."
    )


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
