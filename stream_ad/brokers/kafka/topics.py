"""The topics on Kafka: how they should be configured, and what is wrong with those that exist."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kafka import KafkaAdminClient
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource

from stream_ad.brokers.kafka.connection import connect, errors, retry_while_unavailable
from stream_ad.brokers.tools_api import TopicPlan
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.errors import BrokerError, TopicError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ad.settings import Settings

INPUTS = ("events", "labels")
OUTPUTS = ("scores", "incidents", "dead_letters")
ROLES = (*INPUTS, *OUTPUTS, "state")
HEADERS_BYTES = 16 * 1024  # that a dead letter adds to its record, at most
LEAST_BYTES = 640 * 1024  # for max.message.bytes: workers send batches and chunks of snapshots of 512 KiB
_CHECKED_CONFIG = ("cleanup.policy", "max.message.bytes", "message.timestamp.type", "retention.ms")
DEAD_LETTER_BYTES = 16 * 1024 * 1024  # max.message.bytes of the topic that is created


def wanted_config(settings: Settings, role: str) -> dict[str, str]:
    """Return the configuration of a topic that ``apply`` creates; everything else is the broker's default."""
    if role == "state":
        return {
            "cleanup.policy": "compact",
            # compaction skips the newest segment, and a load reads everything that is not compacted
            "segment.bytes": str(32 * 1024 * 1024),
            "segment.ms": str(3_600_000),
            "min.cleanable.dirty.ratio": "0.1",
        }
    retention = settings.topics.retention_seconds
    config = {
        "cleanup.policy": "delete",
        "retention.ms": "-1" if retention is None else str(int(retention * 1000)),
        # inputs are merged by the time of their source; outputs are kept by the time of writing
        "message.timestamp.type": "CreateTime" if role in INPUTS else "LogAppendTime",
    }
    if role in INPUTS:
        config["message.timestamp.before.max.ms"] = str(2**63 - 1)  # recordings may be old
    if role == "dead_letters":
        config["max.message.bytes"] = str(DEAD_LETTER_BYTES)
    return config


@dataclass(frozen=True, slots=True)
class TopicState:
    """An existing topic."""

    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)
    """Empty where the user may not read it."""


def keeps_time_of_writing(config: Mapping[str, str]) -> bool:
    """Return whether a topic stamps records with the time of writing instead of their own time."""
    return config.get("message.timestamp.type") == "LogAppendTime"


def plan_topic(settings: Settings, role: str, existing: Mapping[str, TopicState]) -> TopicPlan:
    """Compare a topic with the settings.

    Args:
        settings: Of the application.
        role: The topic's role.
        existing: Every existing topic, by role.
    """
    topic, wanted = getattr(settings.topics, role), settings.topics.partitions
    plan = TopicPlan(topic, role, wanted, wanted_config(settings, role))
    if (state := existing.get(role)) is None:
        return TopicPlan(topic, role, wanted, plan.config, note=_retention_note(role, plan.config))
    return TopicPlan(
        topic,
        role,
        state.partitions,
        state.config,
        exists=True,
        problem=_problem(role, wanted, state),
        note=_retention_note(role, state.config) or _size_note(role, existing),
    )


def _problem(role: str, wanted: int, state: TopicState) -> str:
    if role in INPUTS and state.partitions != wanted:
        return (
            f"it has {state.partitions} partitions, topics.partitions is {wanted}: set topics.partitions to the number "
            "that the events and labels topics have, which must be the same for both"
        )
    if state.partitions < wanted:
        return f"it has {state.partitions} partitions and needs topics.partitions = {wanted}: recreate it"
    if role not in INPUTS and int(state.config.get("max.message.bytes", LEAST_BYTES)) < LEAST_BYTES:
        return f"its max.message.bytes is {state.config['max.message.bytes']}: set it to {LEAST_BYTES} at least"
    policy = state.config.get("cleanup.policy", "")
    if role == "state" and policy not in ("", "compact"):
        return f"its cleanup.policy is {policy}, which loses state in time: set it to compact"
    if role != "state" and "compact" in policy:
        return f"its cleanup.policy is {policy}, which keeps one record per sensor only: set it to delete"
    return ""


def _retention_note(role: str, config: Mapping[str, str]) -> str:
    if role not in INPUTS or "retention.ms" not in config:
        return ""
    retention_ms = int(config["retention.ms"])
    if retention_ms < 0:
        return "kept without limit; bound its disk space with topics.retention_seconds"
    kept = f"{retention_ms / 86_400_000:.4g} days"
    if keeps_time_of_writing(config):
        return f"records are deleted {kept} after they were written: a worker that is away for longer misses some"
    return (
        f"records are deleted {kept} after their own time: a worker that is away for longer misses some, and "
        "recordings that are older vanish soon after they were written"
    )


def _size_note(role: str, existing: Mapping[str, TopicState]) -> str:
    if role != "dead_letters" or "events" not in existing:
        return ""
    largest = [int(existing[r].config.get("max.message.bytes", 0)) for r in ("events", "labels") if r in existing]
    limit = int(existing[role].config.get("max.message.bytes", 2**63))
    if limit >= max(largest) + HEADERS_BYTES:
        return ""
    return (
        f"max.message.bytes {limit} leaves no room for a rejected record of {max(largest)} bytes and its headers; "
        f"raise it to {max(largest) + HEADERS_BYTES}"
    )


class TopicAdmin:
    """An admin client for the application's topics; connects when it is created."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = connect(KafkaAdminClient, settings)

    def plan(self) -> list[TopicPlan]:
        """Return all topics as they should be and as they are."""
        with errors(self._settings, "reading the topics"):
            existing = retry_while_unavailable(self._existing)
        return [plan_topic(self._settings, role, existing) for role in ROLES]

    def _existing(self) -> dict[str, TopicState]:
        names = {getattr(self._settings.topics, role): role for role in ROLES}
        sizes: dict[str, int] = {}
        for topic in self._client.describe_topics(list(names)):
            error = kafka_errors.for_code(topic["error_code"])
            if error is kafka_errors.NoError:
                sizes[topic["name"]] = len(topic["partitions"])
            elif error is not kafka_errors.UnknownTopicOrPartitionError:
                raise error(topic["name"])
        configs: Mapping[str, Mapping[str, Any]] = {}
        if sizes:
            resources = [ConfigResource("topic", name) for name in sizes]
            configs = self._client.describe_configs(resources, config_filter="all").get("topic", {})
        return {
            names[name]: TopicState(
                partitions,
                {key: entry["value"] for key, entry in configs.get(name, {}).items() if key in _CHECKED_CONFIG},
            )
            for name, partitions in sizes.items()
        }

    def create(self, plans: list[TopicPlan]) -> None:
        """Create topics and wait until they can be used."""
        if not plans:
            return
        request = {
            plan.topic: {
                "num_partitions": plan.partitions,
                "replication_factor": self._settings.topics.replication_factor,
                "configs": dict(plan.config),
            }
            for plan in plans
        }
        with errors(self._settings, "creating topics"):
            retry_while_unavailable(lambda: self._create(request))

    def _create(self, request: dict[str, dict[str, Any]]) -> None:
        wanted = self._settings.topics.replication_factor
        try:
            self._client.create_topics(request, wait_for_metadata=True)
        except kafka_errors.TopicAlreadyExistsError:  # another process was faster
            self._client.wait_for_topics(list(request))
        except kafka_errors.InvalidReplicationFactorError as error:
            alive = len(self._client.describe_cluster()["brokers"])
            if not 0 < alive < wanted:  # brokers had left the cluster for a moment
                raise kafka_errors.MetadataEmptyBrokerList(error) from error
            raise BrokerError(
                f"Kafka cannot create topics with {wanted} replicas while only {alive} of its brokers run ({error}).",
                hint="Set topics.replication_factor to at most the number of its brokers.",
            ) from error

    @property
    def client(self) -> KafkaAdminClient:
        """The client itself."""
        return self._client

    def close(self) -> None:
        """Close the client."""
        self._client.close()


def require_topics(settings: Settings) -> None:
    """Check all topics before a worker starts.

    Raises:
        TopicError: A topic is missing or cannot be used.
    """
    plans = _plans(settings)
    if missing := [plan.topic for plan in plans if not plan.exists]:
        raise TopicError(f"Missing on Kafka: {', '.join(missing)}.", hint="Run `stream-ad topics apply`.")
    if wrong := [f"{plan.topic}: {plan.problem}" for plan in plans if plan.problem]:
        raise TopicError(f"Topics cannot be used as they are. {'; '.join(wrong)}.", hint="See `stream-ad topics plan`.")


def input_topics(settings: Settings) -> dict[InputTopic, TopicPlan]:
    """Return the two input topics as they are, for a producer.

    Raises:
        TopicError: A topic is missing.
    """
    plans = {plan.role: plan for plan in _plans(settings)}
    inputs = {side: plans[side.value] for side in InputTopic}
    if missing := [plan.topic for plan in inputs.values() if not plan.exists]:
        raise TopicError(f"Missing on Kafka: {', '.join(missing)}.", hint="Run `stream-ad topics apply`.")
    return inputs


def _plans(settings: Settings) -> list[TopicPlan]:
    with closing(TopicAdmin(settings)) as admin:
        return admin.plan()
