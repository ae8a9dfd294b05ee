"""A shard that learns nothing and remembers all records: its score of an event is a digest of all records up to it,
in the order in which they were processed. So a single record out of order changes every score after it.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from stream_ad.detector.alarm_config import USUAL_INCIDENTS
from stream_ad.records.columns import Scores, ShardStatus, StepResult
from stream_ad.shard.merge import merge_order


def digest(score: float, kind: str, offset: int) -> float:
    """Return the score after one more record, "event" or "label": 0 to 1."""
    text = f"{score!r} {kind} {offset}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:6]) / 2**48


def expected_scores(topic, shard, order):
    """Return (event_id, score) of every event of a shard whose records were processed in this order."""
    score, expected = 0.0, []
    for kind, offset in order:
        score = digest(score, kind, offset)
        if kind == "event":
            expected.append((f"{topic}-{shard}-{offset}", score))
    return expected


class OrderShard:
    """Replaces ``stream_ad.shard.shard.Shard``."""

    model_version = "order"

    def __init__(self, options, *, incidents=USUAL_INCIDENTS, expected="none"):
        self.score = 0.0
        self.order: list[tuple[str, int]] = []

    def step(self, events, labels):
        before = merge_order(events.record_times_ms, labels.record_times_ms).tolist()
        scores, passed = [], 0
        for row, offset in enumerate(events.offsets.tolist()):
            passed = self._labels(labels, passed, before[row])
            self._take("event", offset)
            scores.append(self.score)
        self._labels(labels, passed, len(labels))
        return StepResult(
            scores=Scores(
                score=np.array(scores, float),
                alarms=np.zeros((len(events), 1)),
                kinds=np.zeros(len(events), np.int8),
                endings=np.zeros(len(events), np.int8),
                live=np.ones(len(events), bool),
            ),
            incidents=[],
            counts={"events": len(events)},
            label_outcomes={},
            label_delays_s=np.empty(0),
            losses=np.empty(0),
        )

    def _labels(self, labels, start, stop):
        for offset in labels.offsets[start:stop].tolist():
            self._take("label", offset)
        return max(start, stop)

    def _take(self, kind, offset):
        self.order.append((kind, offset))
        self.score = digest(self.score, kind, offset)

    def status(self):
        return ShardStatus(0, 0, 0, {}, 0, 0, self.model_version, {}, {}, 0.0, 0)

    def snapshot(self):
        return json.dumps([self.score, self.order]).encode()

    @classmethod
    def restore(cls, data, options, *, incidents=USUAL_INCIDENTS, expected="none"):
        shard = cls(options)
        shard.score, order = json.loads(data)
        shard.order = [(kind, offset) for kind, offset in order]
        return shard
