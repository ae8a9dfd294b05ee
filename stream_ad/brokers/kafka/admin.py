"""The administration of topics on Kafka, for commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kafka import errors as kafka_errors

from stream_ad.brokers.kafka.client_api import client_of
from stream_ad.brokers.kafka.doctor import examine
from stream_ad.brokers.kafka.private_names import TESTED, unsupported_reason
from stream_ad.brokers.kafka.topics import TopicAdmin
from stream_ad.errors import BrokerError, SettingsError
from stream_ad.util.findings import problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ad.brokers.tools_api import TopicPlan
    from stream_ad.settings import Settings
    from stream_ad.util.findings import Finding


class KafkaAdmin:
    """See ``tools_api.Admin``. All methods share one admin client, which connects on first use."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin: TopicAdmin | None = None

    def _connected(self) -> TopicAdmin:
        self._admin = self._admin or TopicAdmin(self._settings)
        return self._admin

    def plan(self) -> list[TopicPlan]:
        """See ``Admin.plan``."""
        return self._connected().plan()

    def apply(self) -> list[TopicPlan]:
        """See ``Admin.apply``."""
        plans = self.plan()
        self._connected().create([plan for plan in plans if not plan.exists])
        return plans

    def examine(self) -> Iterator[Finding]:
        """See ``Admin.examine``."""
        admin = self._connected()
        try:
            client_of(self._settings)
        except SettingsError as error:
            yield problem("versions", error.what, error.hint)
        if reason := unsupported_reason():
            yield warning(
                "versions",
                f"{reason}: it is used over its public interface alone, which is slower.",
                f"Install a supported version: pip install kafka-python=={TESTED[-1]}.",
            )
        try:
            plan = admin.plan()
        except BrokerError as error:
            if not isinstance(error.__cause__, kafka_errors.AuthorizationError):
                raise
            yield problem("rights", error.what, error.hint)
        else:
            yield from examine(self._settings, admin.client, plan)

    def ping(self) -> None:
        """See ``Admin.ping``."""
        self.plan()

    def close(self) -> None:
        """See ``Admin.close``."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None
