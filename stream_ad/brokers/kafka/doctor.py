"""Checks of Kafka for ``stream-ad doctor``: versions, rights, topics, retention, clock, disk, workers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import OffsetSpec

from stream_ad.brokers.kafka.connection import errors, group_members
from stream_ad.brokers.kafka.topics import INPUTS, OUTPUTS, ROLES
from stream_ad.errors import BrokerError
from stream_ad.util.findings import disk, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kafka import KafkaAdminClient

    from stream_ad.brokers.tools_api import TopicPlan
    from stream_ad.settings import Settings
    from stream_ad.util.findings import Finding

OLDEST_KAFKA = (2, 5)  # the first version that fences a transaction by the group's generation
LEAST_FREE = 1_000_000_000  # bytes of a disk
AHEAD_S = 5.0  # tolerated lead of a broker's clock
DAY_S = 86_400.0
_NEEDED = {
    **dict.fromkeys(INPUTS, ("READ", "DESCRIBE")),
    **dict.fromkeys((*OUTPUTS, "state"), ("READ", "WRITE", "DESCRIBE")),  # outputs are read, too: hanging_transactions
}


def examine(settings: Settings, client: KafkaAdminClient, plan: Sequence[TopicPlan]) -> Iterator[Finding]:
    """Yield findings about Kafka; see ``tools_api.Admin.examine``.

    Args:
        settings: Of the application.
        client: A connected admin client.
        plan: The topics as they should be and as they are.
    """
    for check in (_brokers, _group, _transactions, _disks):
        try:
            with errors(settings, f"reading its {check.__name__.strip('_')}"):
                yield from check(settings, client)
        except BrokerError as error:
            yield problem("rights", error.what, error.hint)
    with errors(settings, "reading the topics"):
        yield from _topics(settings, plan)
        yield from _rights(settings, client, plan)
        yield from _retention(settings, plan)
        yield from _times(settings, client, plan)


def _brokers(settings: Settings, client: KafkaAdminClient) -> Iterator[Finding]:
    cluster = client.describe_cluster()
    number = len(cluster["brokers"])
    how = settings.broker.security.protocol
    yield ok("connection", f"{number} broker{'s' * (number > 1)} at {settings.broker.bootstrap_servers}, by {how}.")
    version = tuple(client.get_broker_version_data(cluster["brokers"][0]["broker_id"]).broker_version)
    version_text = ".".join(map(str, version))
    if version and version < OLDEST_KAFKA:
        yield problem("versions", f"Kafka speaks protocols of {version_text}.", "Use Apache Kafka 2.5 or newer.")
    else:
        yield ok("versions", f"Kafka, with the protocols of {version_text} or newer.")
    if settings.topics.replication_factor > number:
        yield problem(
            "settings",
            f"topics.replication_factor is {settings.topics.replication_factor}, there are {number} brokers.",
            "Set it to at most the number of brokers.",
        )


def _group(settings: Settings, client: KafkaAdminClient) -> Iterator[Finding]:
    members = group_members(client, settings.application_id)
    yield ok("workers", f"{len(members)} run, on {', '.join(sorted(set(members)))}." if members else "none runs.")


def _transactions(settings: Settings, client: KafkaAdminClient) -> Iterator[Finding]:
    wanted = f"{settings.application_id}-0"
    try:
        client.describe_transactions([wanted])
    except kafka_errors.TransactionalIdAuthorizationFailedError:
        yield problem(
            "rights",
            f"'{settings.broker.security.username or 'anonymous'}' may not use the transactional id {wanted}.",
            f"Give this user write and describe on transactional ids that begin with {settings.application_id}.",
        )
    except kafka_errors.KafkaError:
        return  # no transaction was used yet, or there is no coordinator yet: no problem for a worker


def _disks(_settings: Settings, client: KafkaAdminClient) -> Iterator[Finding]:
    try:
        brokers = client.describe_log_dirs()
    except kafka_errors.KafkaError:
        return  # a right that is not needed
    for broker in brokers:
        for folder in broker["log_dirs"]:
            if folder.get("total_bytes", -1) > 0:
                yield disk(
                    f"{folder['log_dir']} of broker {broker['broker']}",
                    folder["usable_bytes"],
                    folder["total_bytes"],
                    needed=LEAST_FREE,
                    remediation="Free some space there, or bound the topics with retention.ms.",
                )


def _topics(settings: Settings, plan: Sequence[TopicPlan]) -> Iterator[Finding]:
    missing = [topic.topic for topic in plan if not topic.exists]
    if missing:
        yield problem("topics", f"missing: {', '.join(missing)}.", "Run `stream-ad topics apply`.")
    for topic in plan:
        if topic.problem:
            yield problem("topics", f"{topic.topic}: {topic.problem}.", "See `stream-ad topics plan`.")
        elif topic.role == "dead_letters" and topic.exists and topic.note:
            yield warning(
                "topics", f"{topic.topic}: {topic.note}.", "Otherwise a rejected record of that size stops its shard."
            )
    if not missing and not any(topic.problem for topic in plan):
        yield ok(
            "topics",
            f"all {len(ROLES)} are there; {settings.topics.partitions} partitions of events and labels, the state is "
            "compacted.",
        )


def _rights(settings: Settings, client: KafkaAdminClient, plan: Sequence[TopicPlan]) -> Iterator[Finding]:
    roles = {topic.topic: topic.role for topic in plan if topic.exists}
    user = settings.broker.security.username or "anonymous"
    lacking = []
    for topic in client.describe_topics(list(roles)) if roles else ():
        allowed = topic.get("authorized_operations")
        if allowed is None:
            continue  # the broker does not tell
        if lacks := [right for right in _NEEDED[roles[topic["name"]]] if right not in allowed]:
            lacking.append(f"{' and '.join(lacks).lower()} {topic['name']}")
    if lacking:
        yield problem(
            "rights",
            f"'{user}' may not {'; '.join(lacking)}.",
            "Give this user these rights; docs/how-to/operations.md lists all that are needed.",
        )
    elif roles:
        yield ok("rights", f"'{user}' may read and write the topics.")


def _retention(settings: Settings, plan: Sequence[TopicPlan]) -> Iterator[Finding]:
    """Check retention against what a replay, and a late label, need."""
    horizon_s, interval_s = settings.learning.label_horizon_seconds or 0.0, settings.worker.snapshot_interval_seconds
    seen = False
    for topic in plan:
        if topic.role not in INPUTS or not topic.exists or "retention.ms" not in topic.config:
            continue
        seen = True
        kept_s = int(topic.config["retention.ms"]) / 1000
        statement = f"{topic.topic} keeps records for {_span(kept_s)}"
        remediation = f"Raise retention.ms of {topic.topic}."
        if kept_s < 0:
            continue
        if kept_s < 10 * interval_s:
            yield problem(
                "retention",
                f"{statement}, snapshots are {_span(interval_s)} apart: a replay may miss some.",
                remediation,
            )
        elif kept_s < horizon_s:
            yield warning("retention", f"{statement}, labels may come {_span(horizon_s)} late.", remediation)
        elif kept_s < DAY_S:
            yield warning("retention", f"{statement}: a worker that is away for longer loses some.", remediation)
        else:
            yield ok("retention", f"{statement}.")
    if seen and all(int(t.config.get("retention.ms", 0)) < 0 for t in plan if t.role in INPUTS):
        yield ok("retention", "events and labels are kept without limit.")


def _span(seconds: float) -> str:
    for size, name in ((DAY_S, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.4g} {name}"
    return f"{seconds:.4g} s"


def _times(settings: Settings, client: KafkaAdminClient, plan: Sequence[TopicPlan]) -> Iterator[Finding]:
    """Check for records of the future: then a clock is wrong, on this host or on another."""
    limits = {
        "scores": AHEAD_S,
        "events": settings.events.max_ahead_seconds,
        "labels": settings.events.max_ahead_seconds,
    }
    for topic in plan:
        if topic.role not in limits or not topic.exists:
            continue
        specs = {TopicPartition(topic.topic, n): OffsetSpec.MAX_TIMESTAMP for n in range(topic.partitions)}
        try:
            offsets = client.list_partition_offsets(specs)
        except kafka_errors.KafkaError:
            return  # older brokers do not tell; rights were checked above
        newest_ms = max((offset.timestamp for offset in offsets.values() if offset.timestamp is not None), default=-1)
        ahead_s = newest_ms / 1000 - time.time()
        if ahead_s > limits[topic.role]:
            whose = "the brokers' clock or this one's is" if topic.role == "scores" else "a producer's clock is"
            yield warning(
                "clock",
                f"the newest record of {topic.topic} is {_span(ahead_s)} in the future: {whose} wrong.",
                "Keep all clocks with NTP.",
            )
