"""A replacement of the client's reader of one partition's fetch, which decodes a batch at a time to plain tuples.

It verifies and skips the same as the client's: checksums, records before the position, transaction markers, records of
aborted transactions. It only avoids a named tuple of thirteen fields and a dozen calls per record (``record_batch``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, KafkaError, UnsupportedForMessageFormatError
from kafka.protocol.consumer import IsolationLevel

from stream_ad.brokers.kafka.kafka_python.record_batch import FORMAT, Record, decode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kafka import KafkaConsumer, TopicPartition


class FetchedPartition(Fetcher.PartitionRecords):  # type: ignore[misc]
    """One partition's fetch, which returns ``Record`` tuples instead of the client's ConsumerRecord."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._batch: list[Record] = []
        self._taken = 0
        self._batch_end = 0  # the next offset to fetch after the batch
        super().__init__(*arguments, **options)

    def take(self, n: int | None = None) -> list[Record]:
        """Return at most ``n`` records; fewer at the end of the fetch, or before an unreadable record."""
        records: list[Record] = []
        try:
            while self.record_iterator is not None and (n is None or len(records) < n):
                if self._taken == len(self._batch):
                    self._batch, self._taken = next(self.record_iterator, []), 0
                    continue  # the iterator ends with drain(), which sets it to None
                stop = len(self._batch) if n is None else self._taken + n - len(records)
                records += self._batch[self._taken : stop]
                self._taken = min(stop, len(self._batch))
                whole = self._taken == len(self._batch)
                self.next_fetch_offset = self._batch_end if whole else records[-1][0] + 1
        except KafkaError:
            self.drain()  # the next fetch raises it again
            if not records:
                raise
        return records

    def _maybe_skip_record(self, batch: list[Record]) -> bool:  # noqa: ARG002 (the client's signature)
        return False  # _unpack_records skips them per batch

    def _unpack_records(self, tp: TopicPartition, records: Any, *_: Any) -> Iterator[list[Record]]:
        while (batch := records.next_batch()) is not None:
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError(f"Checksum of {tp.topic}[{tp.partition}] at offset {batch.base_offset}.")
            if batch.magic != FORMAT:
                raise UnsupportedForMessageFormatError(
                    f"{tp.topic}[{tp.partition}] holds records written before Kafka 0.11."
                )
            self.leader_epoch = batch.leader_epoch
            if self._is_hidden(batch):
                self.next_fetch_offset = batch.next_offset
                continue
            self.bytes_read += batch.size_in_bytes
            decoded = _records(batch)
            if decoded and decoded[0][0] < self.fetch_offset:
                decoded = [record for record in decoded if record[0] >= self.fetch_offset]
            self._batch_end = batch.next_offset
            if decoded:
                yield decoded
            else:  # compaction has left an empty batch
                self.next_fetch_offset = batch.next_offset
        self.drain()

    def _is_hidden(self, batch: Any) -> bool:
        """Return whether a batch is a transaction marker, or part of an aborted transaction."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


def _records(batch: Any) -> list[Record]:
    batch._maybe_uncompress()  # noqa: SLF001
    data = bytes(batch._buffer[batch._pos :])  # noqa: SLF001
    append_time_ms = batch.max_timestamp if batch.timestamp_type == batch.LOG_APPEND_TIME else None
    return decode(data, batch.records_count, batch.base_offset, batch.first_timestamp, append_time_ms)


def install_batch_reader(consumer: KafkaConsumer) -> None:
    """Make a consumer's polls return ``Record`` tuples."""
    consumer._fetcher.PartitionRecords = FetchedPartition  # noqa: SLF001


def requeue_resumed_partitions(consumer: KafkaConsumer) -> None:
    """Let the next poll continue with records that were fetched before their partition was paused.

    The client (3.0.12) parks such records, and takes them up again only when it holds no current fetch at all. But it
    keeps an exhausted fetch as the current one, so a partition that was paused halfway and then resumed would never be
    read again: as long as records of it are parked, it is not fetched either.
    """
    fetcher = consumer._fetcher  # noqa: SLF001
    if not fetcher._next_partition_records:  # noqa: SLF001 -- exhausted
        fetcher._next_partition_records = None  # noqa: SLF001


def has_fetched_ahead(consumer: KafkaConsumer) -> bool:
    """Return whether the next poll will return records that are fetched already, and fetch the next ones ahead."""
    fetcher = consumer._fetcher  # noqa: SLF001
    return bool(fetcher._completed_fetches or fetcher._next_partition_records)  # noqa: SLF001
