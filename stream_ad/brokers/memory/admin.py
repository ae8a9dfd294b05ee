"""The topic administration of the broker in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ad.brokers.memory.store import ROLES, Store
from stream_ad.brokers.tools_api import TopicPlan
from stream_ad.util.findings import ok, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ad.settings import Settings
    from stream_ad.util.findings import Finding


class MemoryAdmin:
    """See ``tools_api.Admin``."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def plan(self) -> list[TopicPlan]:
        """See ``Admin.plan``."""
        topics, made = self._settings.topics, self._store.topics
        other = next((count for count in made.values() if count != topics.partitions), None)
        problem = "" if other is None else f"This broker in memory was created with {other} partitions."
        names = {role: getattr(topics, role) for role in ROLES}
        return [
            TopicPlan(name, role, topics.partitions, exists=name in made, problem=problem)
            for role, name in names.items()
        ]

    def apply(self) -> list[TopicPlan]:
        """See ``Admin.apply``."""
        plan = self.plan()
        if not any(topic.problem for topic in plan):
            self._store.make_topics(self._settings)
        return plan

    def examine(self) -> Iterator[Finding]:
        """See ``Admin.examine``."""
        yield ok("connection", "a broker in memory.")
        for topic in self.plan():
            if topic.problem:
                yield problem("topics", topic.problem, "Use one MemoryBroker for each number of partitions.")

    def ping(self) -> None:
        """Do nothing: it is always reachable."""

    def close(self) -> None:
        """Do nothing: nothing is kept open."""
