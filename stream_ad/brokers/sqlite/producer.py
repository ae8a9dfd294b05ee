"""The producer of input records of the embedded broker."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from stream_ad.brokers.partitioner import partition_for
from stream_ad.brokers.sqlite.database import Database
from stream_ad.brokers.worker_api import InputTopic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings


class SqliteProducer:
    """See ``tools_api.Producer``. Each ``send`` is one transaction: send many records at a time."""

    def __init__(self, settings: Settings) -> None:
        self._topics = {InputTopic.EVENTS: settings.topics.events, InputTopic.LABELS: settings.topics.labels}
        self._partitions = settings.topics.partitions
        self._database = Database(settings)

    def send(self, side: InputTopic, records: Sequence[OutRecord]) -> None:
        """See ``Producer.send``."""
        by_partition: defaultdict[int, list[OutRecord]] = defaultdict(list)
        for record in records:
            by_partition[partition_for(record.key, self._partitions)].append(record)
        with self._database.write():
            for partition, batch in by_partition.items():
                self._database.append(self._topics[side], partition, batch)

    def flush(self) -> None:
        """Do nothing: ``send`` returns once its records are durable."""

    def close(self) -> None:
        """Close the database."""
        self._database.close()
