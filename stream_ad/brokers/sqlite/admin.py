"""The topic administration of the embedded broker."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from stream_ad.brokers.sqlite.database import Database, topic_roles
from stream_ad.brokers.sqlite.doctor import examine
from stream_ad.brokers.sqlite.read_only import DatabaseView
from stream_ad.brokers.tools_api import TopicPlan
from stream_ad.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ad.settings import Settings
    from stream_ad.util.findings import Finding


class SqliteAdmin:
    """See ``tools_api.Admin``. The topics are created with the file."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = Path(settings.broker.path).expanduser()

    def plan(self) -> list[TopicPlan]:
        """See ``Admin.plan``."""
        self.ping()
        existing: defaultdict[str, int] = defaultdict(int)
        if self._path.exists():
            database = DatabaseView(self._settings)
            database.close()
            for topic, _ in database.logs:
                existing[topic] += 1
        wanted = self._settings.topics.partitions
        others = set(existing.values()) - {wanted}
        problem = (
            f"{self._path} was created with {others.pop()} partitions; that cannot be changed, use another broker.path."
            if others
            else ""
        )
        return [
            TopicPlan(topic, role, wanted, exists=topic in existing, problem=problem)
            for role, topic in topic_roles(self._settings).items()
        ]

    def apply(self) -> list[TopicPlan]:
        """See ``Admin.apply``."""
        plan = self.plan()
        if not any(topic.problem for topic in plan):
            Database(self._settings).close()
        return plan

    def examine(self) -> Iterator[Finding]:
        """See ``Admin.examine``."""
        yield from examine(self._settings, self._path, self.plan())

    def ping(self) -> None:
        """See ``Admin.ping``."""
        if self._path.exists():
            DatabaseView(self._settings).close()
        elif not os.access(self._path.parent, os.W_OK | os.X_OK):
            raise BrokerError(
                f"The embedded broker cannot create {self._path}: its folder is missing or read-only.",
                hint="Create the folder and make it writable, or set broker.path to another file.",
            )

    def close(self) -> None:
        """Do nothing: nothing is kept open."""
