"""The marks of a shard's commits in the state topic; see kafka_state for the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from stream_ad.brokers.kafka.snapshot_manifest import Offset
from stream_ad.brokers.worker_api import InputOffsets
from stream_ad.errors import StateError

if TYPE_CHECKING:
    from stream_ad.brokers.worker_api import Snapshot
    from stream_ad.settings import Settings

Written = tuple[str, bytes | None]
"""A key without the application, and a value; None removes what stands under the key."""


class KafkaJournal:
    """What the state topic holds of one shard's journal.

    Args:
        settings: Whose.
        shard: Its number.
    """

    def __init__(self, settings: Settings, shard: int) -> None:
        self._topic, self._shard = settings.topics.state, shard
        self._marks: dict[InputOffsets, tuple[InputOffsets, ...]] = {}  # of a commit, by the last one, in order
        self._before: set[InputOffsets] = set()  # see ``closed``

    def __bool__(self) -> bool:
        return bool(self._marks)

    @property
    def last(self) -> InputOffsets | None:
        return max(self._marks, default=None)

    def take(self, last: InputOffsets, value: bytes | None) -> None:
        """Take what stands under the key of some marks, in the order of the topic.

        Raises:
            StateError: It cannot be read.
        """
        self._before.discard(last)
        if value is None:
            self._marks.pop(last, None)
            return
        try:
            step_boundaries = msgspec.json.decode(value, type=list[tuple[Offset, Offset]])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise StateError(
                f"The journal of shard {self._shard} in {self._topic} cannot be read ({error}).",
                hint=f"`stream-ad snapshots reset {self._shard}` starts with a new model.",
            ) from error
        self._marks[last] = tuple(InputOffsets(*mark) for mark in step_boundaries)

    def closed(self, positions: InputOffsets) -> None:
        """Take note that the manifest of a snapshot comes here: later marks that came before it are written once more,
        so that a load may begin to read behind it.
        """
        self._before = {last for last in self._marks if last > positions}

    def add(self, step_boundaries: tuple[InputOffsets, ...]) -> list[Written]:
        """What is to be written of a commit with these marks."""
        repeated = sorted(self._before & self._marks.keys())
        self._before = set()
        if step_boundaries:
            self._marks[step_boundaries[-1]] = step_boundaries
        return [_record(self._marks[last]) for last in [*repeated, *step_boundaries[-1:]]]

    def prune(self, floor: InputOffsets | None) -> list[Written]:
        """What removes the marks at or before a position; None: all of them."""
        gone = [last for last in self._marks if floor is None or last <= floor]
        for last in gone:
            del self._marks[last]
        return [(_key(last), None) for last in gone]

    def since(self, snapshot: Snapshot | None) -> tuple[InputOffsets, ...]:
        """See ``base.ShardCheckpoint.journal``."""
        step_boundaries = dict.fromkeys(
            mark for commit in self._marks.values() for mark in commit
        )  # a repeated one counts once
        return tuple(mark for mark in step_boundaries if snapshot is None or mark > snapshot.positions)


def _record(step_boundaries: tuple[InputOffsets, ...]) -> Written:
    return _key(step_boundaries[-1]), msgspec.json.encode([(mark.events, mark.labels) for mark in step_boundaries])


def _key(last: InputOffsets) -> str:
    return f"journal/{last.events}/{last.labels}"
