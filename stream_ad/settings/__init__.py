"""Settings: one frozen tree, read from a file, the environment and options."""

from stream_ad.settings.model import (
    BrokerSettings,
    EventSettings,
    FieldMapping,
    HttpSettings,
    LogSettings,
    ScoreSettings,
    SecuritySettings,
    Settings,
    TopicSettings,
    WorkerSettings,
)

__all__ = [
    "BrokerSettings",
    "EventSettings",
    "FieldMapping",
    "HttpSettings",
    "LogSettings",
    "ScoreSettings",
    "SecuritySettings",
    "Settings",
    "TopicSettings",
    "WorkerSettings",
]
