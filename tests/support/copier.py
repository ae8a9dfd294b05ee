"""The smallest worker: publishes each event's value as a score, exactly once if the broker fulfils its contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ad.brokers.worker_api import Commit, InputOffsets, InputTopic
from stream_ad.errors import BrokerError
from stream_ad.records.columns import OutRecord

if TYPE_CHECKING:
    from stream_ad.brokers.worker_api import Broker


class Copier:
    """A worker that loads its shards, copies what it polls, and loads again after an error, as the contract demands."""

    def __init__(self, broker: Broker, *, batch: int = 50) -> None:
        self.broker = broker
        self.failures = 0
        self.commits = 0
        self._batch = batch
        self._at: dict[int, InputOffsets] = {}

    def turn(self) -> None:
        """Poll once, and commit each shard that got records."""
        fetched = self.broker.poll(timeout_s=0.2, max_records=self._batch)
        owned = self.broker.assigned()
        self._at = {shard: at for shard, at in self._at.items() if shard in owned}
        for shard, sides in fetched.items():
            records = sides[InputTopic.EVENTS].records
            if shard in self._at and len(records):
                end = InputOffsets(int(records.offsets[-1]) + 1, 0)
                scores = [OutRecord(b"k", value, 0) for value in records.values]
                self._try(shard, Commit(shard, end, scores=scores, step_boundaries=(self._at[shard], end)))
        for shard in owned - self._at.keys():
            self._try(shard, None)

    def _try(self, shard: int, commit: Commit | None) -> None:
        try:
            if commit is None:
                self._at[shard] = self.broker.load(shard).positions
                self.broker.seek(shard, self._at[shard])
            else:
                self.broker.commit(commit)
                self.commits += 1
                self._at[shard] = commit.positions
        except BrokerError:
            self.failures += 1
            self._at.pop(shard, None)
