"""The one settings tree.

Sources, the first takes precedence: ``--set key=value``, environment (``STREAM_AD_BROKER__KIND``), YAML file,
secret files, defaults. Unknown keys are refused, unknown ``STREAM_AD_*`` variables too.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from stream_ad.detector.alarm_config import IncidentSettings
from stream_ad.detector.alarms.quantities import LONGEST_S
from stream_ad.detector.config import DetectorOptions
from stream_ad.detector.section import MOST, Seconds, Section

BrokerSeconds = Annotated[float, Field(ge=0.01, le=86_400)]  # in 32 bits of milliseconds, as Kafka has them
TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


def _servers(text: str) -> str:
    for server in text.split(","):
        match = re.fullmatch(r"([^\s:/,]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", server.strip())
        if match is None or not 0 < int(match[2]) <= 65_535:
            raise ValueError(f"'{server.strip()}' is not host:port; separate several by commas")
    return text


def _text_of_number(value: Any) -> Any:
    """Return the text of a number that YAML has read without quotes."""
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else value


def _refuse(*contradictions: tuple[bool, str]) -> None:
    """Raise one ValueError with the text of every contradiction that is present."""
    if texts := [text for holds, text in contradictions if holds]:
        raise ValueError("; ".join(texts))


class SecuritySettings(Section):
    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to Kafka."
    )
    ca_file: str | None = Field(None, description="Certificate authority that signed the brokers' certificates (PEM).")
    certificate_file: str | None = Field(None, description="Client certificate (PEM).")
    key_file: str | None = Field(None, description="Key of the client certificate (PEM).")
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(None, description="SASL mechanism.")
    username: str | None = Field(None, description="SASL user.")
    password: SecretStr | None = Field(None, description="SASL password; better in a secret file or the environment.")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        sasl, tls = self.protocol.startswith("SASL"), self.protocol.endswith("SSL")
        asked = f"protocol {self.protocol}"
        needed = [name for name in ("mechanism", "username", "password") if getattr(self, name) is None]
        files = [name for name in ("ca_file", "certificate_file", "key_file") if getattr(self, name) is not None]
        _refuse(
            (sasl and bool(needed), f"{asked} needs {', '.join(needed)} too"),
            (not sasl and self.mechanism is not None, f"mechanism is given, but {asked} does not log in; use SASL_SSL"),
            (not tls and bool(files), f"{', '.join(files)} given, but {asked} does not encrypt; use SSL or SASL_SSL"),
            (
                (self.certificate_file is None) != (self.key_file is None),
                "certificate_file and key_file belong together; one of them is missing",
            ),
        )
        return self


class BrokerSettings(Section):
    kind: Literal["sqlite", "kafka"] = Field("sqlite", description="Embedded broker, or Apache Kafka.")
    path: str = Field("stream-ad.db", description="Database file of the embedded broker.")
    bootstrap_servers: Annotated[str, AfterValidator(_servers)] = Field(
        "127.0.0.1:9092", description="Kafka brokers, host:port, separated by commas."
    )
    client: Literal["kafka-python", "kafka-python-public", "librdkafka"] = Field(
        "kafka-python",
        description="Library that reads and writes records on Kafka. kafka-python-public uses only its public "
        "interface, which is slower and is also the fallback for versions not tested here; librdkafka needs "
        '`pip install "stream-ad[librdkafka]"`.',
    )
    security: SecuritySettings = SecuritySettings()
    instance_id: str | None = Field(
        None,
        description="Static membership: a worker back under this id within the session timeout keeps its shards.",
    )
    session_timeout_seconds: BrokerSeconds = Field(
        6.0,
        le=3600,
        description="Silence after which the group considers a worker dead; Kafka accepts 6 and more unless configured "
        "otherwise.",
    )
    max_poll_interval_seconds: BrokerSeconds = Field(
        60.0, description="A worker that does not poll for this long loses its shards."
    )
    transaction_timeout_seconds: BrokerSeconds = Field(
        10.0, description="A dead worker's open transaction blocks readers for at most this long."
    )
    give_up_seconds: BrokerSeconds = Field(
        120.0, description="A broker that is unreachable for longer ends the worker with an error."
    )
    on_lost_records: Literal["stop", "continue"] = Field(
        "stop",
        description="When records were deleted before they were read (retention, a topic created again): stop with an "
        "error, or continue with the oldest records kept and count what is missing.",
    )
    synchronous: Literal["normal", "full"] = Field(
        "full",
        description="Embedded broker: full survives a power cut; normal may lose the last commits, but never corrupts.",
    )

    @model_validator(mode="after")
    def _suits_the_client(self) -> Self:
        short = self.client == "librdkafka" and self.transaction_timeout_seconds < 1
        _refuse((short, "client librdkafka takes a transaction_timeout_seconds of 1 and more"))
        return self


class TopicSettings(Section):
    events: TopicName = Field("sensor-events", description="Input: sensor readings.")
    labels: TopicName = Field("sensor-labels", description="Input: labels.")
    scores: TopicName = Field("anomaly-scores", description="Output: one score per reading.")
    incidents: TopicName = Field("anomaly-incidents", description="Output: runs of anomalies of a sensor.")
    dead_letters: TopicName = Field(
        "dead-letters", description="Output: input records that cannot be read, unchanged, with the reason."
    )
    state: TopicName = Field("stream-ad-state", description="Snapshots of the shards (Kafka).")
    partitions: int = Field(
        6, ge=1, le=10_000, description="Partitions of the events, labels and state topics; the number of shards."
    )
    replication_factor: int = Field(1, ge=1, le=32_767, description="Of topics that `topics apply` creates (Kafka).")
    retention_seconds: Seconds | None = Field(
        None,
        description="Retention of topics that `topics apply` creates on Kafka, and of the embedded broker; null keeps "
        "records for ever. Counted from a record's own time: on Kafka, recordings older than this vanish when they are "
        "replayed; the embedded broker drops nothing that a shard has not read or that its recovery needs.",
    )

    @model_validator(mode="after")
    def _are_six_topics(self) -> Self:
        roles: dict[str, str] = {}
        for role in ("events", "labels", "scores", "incidents", "dead_letters", "state"):
            topic = getattr(self, role)
            if topic in roles:
                raise ValueError(f"{roles[topic]} and {role} are both '{topic}'; every topic needs its own name")
            roles[topic] = role
        return self


class FieldMapping(Section):
    """Where the parts of an event are found in a message; dots lead into nested objects."""

    sensor_id: str = Field("sensor_id", description='Path of the sensor\'s id; "@key" is the record key.')
    timestamp: str = Field("timestamp", description='Path of the time; "@record" is the record time.')
    values: str | tuple[str, ...] = Field(
        "values",
        description='Path of the object that holds the readings, or a list of paths, or "*": all other numbers.',
    )
    event_id: str | None = Field("event_id", description="Path of the event's id; null: always topic-partition-offset.")


class EventSettings(Section):
    fields: FieldMapping = FieldMapping()
    timestamp_format: Literal["rfc3339", "s", "ms", "us", "ns"] = Field(
        "rfc3339", description="RFC 3339 text, or a number since the epoch in this unit."
    )
    max_record_bytes: int = Field(1_048_576, ge=64, le=MOST, description="A larger record goes to the dead letters.")
    max_ahead_seconds: Seconds = Field(
        3600.0, description="An event further ahead of its record time goes to the dead letters."
    )


class ScoreSettings(Section):
    publish: Literal["all", "anomalies"] = Field(
        "all", description="Every score, or only those of anomalies; the metrics count all of them either way."
    )
    expected: Literal["none", "incidents", "all"] = Field(
        "none", description="Scores that carry what was expected of each feature: none, those in an incident, or all."
    )
    format: Annotated[Literal["1", "0.1"], BeforeValidator(_text_of_number)] = Field(
        "1", description="Form of the scores; 0.1 is that of the releases 0.1, for consumers that are not changed yet."
    )


class WorkerSettings(Section):
    poll_records: int = Field(5_000, ge=1, le=1_000_000, description="Records taken in one poll, at most.")
    step_records: int = Field(
        2_000, ge=1, le=1_000_000, description="Records of a shard in one step and commit, at most."
    )
    inbox_records: int = Field(
        20_000,
        ge=1,
        le=MOST,
        description="Records of a shard and input that wait in memory for the other input, at most.",
    )
    snapshot_interval_seconds: Seconds = Field(
        60.0,
        description="Time between snapshots of a shard; longer where building and writing one takes over 4 % of it.",
    )
    snapshot_history: int = Field(
        2,
        ge=0,
        le=1000,
        description="Older snapshots of a shard kept in addition to the two that recovery needs, for "
        "`snapshots restore`.",
    )
    snapshot_history_interval_seconds: float = Field(
        86_400.0, ge=0, le=LONGEST_S, description="Time between the older snapshots that are kept."
    )
    drain_timeout_seconds: Seconds = Field(20.0, description="Longest time between SIGTERM and the end.")


class HttpSettings(Section):
    enabled: bool = Field(True, description="Serve /metrics, /livez, /readyz, /version and /top.")
    host: str = Field("127.0.0.1", description="Address to listen on; the default, loopback, admits this machine only.")
    port: int = Field(9108, ge=0, le=65_535, description="0 takes a free one.")


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level shown.")
    format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else JSON.")


class Settings(DetectorOptions):
    """The whole tree of settings; frozen. Build it with ``load_settings``."""

    application_id: str = Field(
        "stream-ad",
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="Names the consumer group, the transactional ids and the state, so that applications stay apart.",
    )
    broker: BrokerSettings = BrokerSettings()
    topics: TopicSettings = TopicSettings()
    events: EventSettings = EventSettings()
    scores: ScoreSettings = ScoreSettings()
    incidents: IncidentSettings = IncidentSettings()
    worker: WorkerSettings = WorkerSettings()
    http: HttpSettings = HttpSettings()
    logs: LogSettings = LogSettings()

    @property
    def detector_options(self) -> DetectorOptions:
        """Return the part of the settings that the detector takes."""
        return DetectorOptions(**{name: getattr(self, name) for name in DetectorOptions.model_fields})
