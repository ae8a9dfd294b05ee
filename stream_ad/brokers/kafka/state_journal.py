"""The journal of a shard in the state topic: the step boundaries of its commits; ``state_topic`` describes the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from stream_ad.brokers.kafka.snapshot_manifest import Offset
from stream_ad.brokers.worker_api import InputOffsets
from stream_ad.errors import StateError

if TYPE_CHECKING:
    from stream_ad.brokers.worker_api import Snapshot
    from stream_ad.settings import Settings

StateRecord = tuple[str, bytes | None]
"""A key without the application's prefix, and a value; None is a tombstone."""


class KafkaJournal:
    """The journal of one shard, as the state topic holds it.

    Args:
        settings: Of the application.
        shard: The shard's number.
    """

    def __init__(self, settings: Settings, shard: int) -> None:
        self._topic, self._shard = settings.topics.state, shard
        self._boundaries: dict[InputOffsets, tuple[InputOffsets, ...]] = {}  # of a commit, by its last one, in order
        self._to_repeat: set[InputOffsets] = set()  # see ``on_manifest``

    def __bool__(self) -> bool:
        return bool(self._boundaries)

    @property
    def last(self) -> InputOffsets | None:
        """The last boundary; None where there is none."""
        return max(self._boundaries, default=None)

    def take(self, last: InputOffsets, value: bytes | None) -> None:
        """Read one record of the journal; call in the order of the topic.

        Args:
            last: The last boundary of a commit, which is the record's key.
            value: The boundaries of that commit; None for a tombstone.

        Raises:
            StateError: The value cannot be read.
        """
        self._to_repeat.discard(last)
        if value is None:
            self._boundaries.pop(last, None)
            return
        try:
            step_boundaries = msgspec.json.decode(value, type=list[tuple[Offset, Offset]])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise StateError(
                f"The journal of shard {self._shard} in {self._topic} cannot be read ({error}).",
                hint=f"`stream-ad snapshots reset {self._shard}` starts with a new model.",
            ) from error
        self._boundaries[last] = tuple(InputOffsets(*boundary) for boundary in step_boundaries)

    def on_manifest(self, positions: InputOffsets) -> None:
        """Note that the manifest of a snapshot was read or written at this point of the topic.

        The next commit repeats the boundaries that lie after the snapshot but were written before its manifest, so that
        a load may begin to read behind the manifest.
        """
        self._to_repeat = {last for last in self._boundaries if last > positions}

    def add(self, step_boundaries: tuple[InputOffsets, ...]) -> list[StateRecord]:
        """Add the boundaries of a commit, and return the records to write."""
        repeated = sorted(self._to_repeat & self._boundaries.keys())
        self._to_repeat = set()
        if step_boundaries:
            self._boundaries[step_boundaries[-1]] = step_boundaries
        return [_record(self._boundaries[last]) for last in [*repeated, *step_boundaries[-1:]]]

    def prune(self, floor: InputOffsets | None) -> list[StateRecord]:
        """Remove the boundaries at or before a floor, or all where it is None; return the tombstones to write."""
        gone = [last for last in self._boundaries if floor is None or last <= floor]
        for last in gone:
            del self._boundaries[last]
        return [(_key(last), None) for last in gone]

    def since(self, snapshot: Snapshot | None) -> tuple[InputOffsets, ...]:
        """Return the boundaries after a snapshot, or all for None; see ``worker_api.ShardCheckpoint.journal``."""
        every = (boundary for commit in self._boundaries.values() for boundary in commit)
        step_boundaries = dict.fromkeys(every)  # a repeated one counts once
        return tuple(boundary for boundary in step_boundaries if snapshot is None or boundary > snapshot.positions)


def _record(step_boundaries: tuple[InputOffsets, ...]) -> StateRecord:
    return _key(step_boundaries[-1]), msgspec.json.encode(
        [(boundary.events, boundary.labels) for boundary in step_boundaries]
    )


def _key(last: InputOffsets) -> str:
    return f"journal/{last.events}/{last.labels}"
