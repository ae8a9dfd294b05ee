"""The learning policy: what is learned when, and as what.

Learning every event at once is wrong: a fault that lasts an hour becomes the new normal. What has
matured is split into normal, anomalous and dropped, then scaler, error variances, threshold and
model learn. Everything that learning changes, changes here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.batches import Matured, Sensors
from stream_ad.detector.head import MOST_OPENNESS
from stream_ad.detector.pending import DROPPED, LEARNED_ANOMALY, LEARNED_NORMAL, NORMAL, UNLABELLED
from stream_ad.detector.rows import take_ring
from stream_ad.detector.threshold import LABELLED_ENOUGH
from stream_ad.detector.trust import doubtful, novelty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.state import SensorState

OUTAGE_WEIGHT = 32.0  # events that all before an outage count as
CATCH_UP_BATCHES = 2  # learn batches a sensor may take at one learn point: a backlog of verdicts drains
WARMUP_WEIGHT = 256.0  # events that a longer warm-up counts as, once verdicts speak


@dataclass(slots=True)
class Learned:
    """What one call of ``learn`` did."""

    normal: int = 0
    anomaly: int = 0
    dropped: int = 0
    drift: int = 0
    losses: list[float] = field(default_factory=list)


class Learner:
    """Learns on the state of a detector."""

    def __init__(self, state: SensorState) -> None:
        self.state = state

    def learn(self, rows: NDArray[np.int64], class_weights: NDArray[np.float64]) -> Learned:
        """Learn what has matured.

        Args:
            rows: (A,) sensors at their learn point.
            class_weights: (K + 1,) weight in the loss of normal and of each anomaly class.
        """
        done = Learned()
        self._watch(rows, done)
        if self.state.options.learning.enabled:
            warm = self._age(rows) <= self.state.options.learning.warmup_events
            if warm.any():
                self._warm_up(rows[warm], class_weights, done)
            mature = rows[~warm]
            for _ in range(CATCH_UP_BATCHES):
                if len(mature):
                    mature = self._learn_matured(mature, class_weights, done)
        self.state.seen[rows] = self.state.pending.count[rows]
        return done

    def begin_anew(self, rows: NDArray[np.int64]) -> None:
        """What follows an outage is learned at once, weighs much, and is judged by a level of its own."""
        self.state.threshold.begin_anew(rows, self.state.context.openness(rows))
        for part in (self.state.scaler, self.state.scoring):
            part.forget(rows, OUTAGE_WEIGHT)
        self.state.coupling.forget(rows, int(WARMUP_WEIGHT))

    def _age(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(A,) events of a sensor so far, or since its last outage."""
        return self.state.pending.count[rows] - self.state.outage.began[rows]

    def _watch(self, rows: NDArray[np.int64], done: Learned) -> None:
        """Gate and drift look at everything that arrived, a full batch of a sensor at a time."""
        rows = rows[self.state.pending.count[rows] - self.state.gate_seen[rows] >= self.state.batch]
        if not len(rows):
            return
        self.state.gate_seen[rows] = self.state.pending.count[rows]
        places = self.state.pending.latest(rows, self.state.batch)
        pending = self.state.pending
        self.state.context.update_gate(rows, places % pending.kept_readings, pending.readings)
        if self.state.options.drift.enabled:
            rank = self.state.threshold.rank(rows, pending.scores(rows, places))
            done.drift += self.state.drift.update(rows, rank)

    def _warm_up(self, rows: NDArray[np.int64], class_weights: NDArray[np.float64], done: Learned) -> None:
        """Take the newest events for normal at once; they are learned again when they have matured."""
        places = self.state.pending.latest(rows, self.state.batch)
        at = rows[:, None], places % self.state.pending.capacity
        first = np.maximum(self.state.seen[rows], self.state.outage.began[rows])
        normal = (places >= first[:, None]) & (self.state.pending.verdict[at] <= NORMAL)
        age, most = self._age(rows), self.state.options.learning.warmup_events
        settled = age > most // 2
        scores = self.state.pending.scores(rows, places)
        self.state.threshold.update(
            rows, scores, np.zeros_like(normal), normal & settled[:, None], self.state.context.openness(rows)
        )
        self._learn_batch(rows, places, normal, np.zeros_like(normal), normal, class_weights, done)
        ended = rows[(age <= most) & (age > most - self.state.batch)]
        self.state.scaler.forget(ended, WARMUP_WEIGHT)
        self.state.scoring.forget(ended, WARMUP_WEIGHT)

    def _learn_matured(
        self, rows: NDArray[np.int64], class_weights: NDArray[np.float64], done: Learned
    ) -> NDArray[np.int64]:
        """Learn one batch of what is ready; returns the sensors that have a whole batch more."""
        places, valid, has_more = self.state.pending.take(rows, self.state.batch, self.state.horizon_ns)
        more, some = rows[has_more], valid.any(axis=1)
        rows, places, valid = rows[some], places[some], valid[some]
        if not len(rows):
            return more
        at = rows[:, None], places % self.state.pending.capacity
        verdict, scores = self.state.pending.verdict[at], self.state.pending.scores(rows, places)
        labelled, anomalous = valid & (verdict == NORMAL), valid & (verdict > NORMAL)
        unlabelled = valid & (verdict == UNLABELLED)
        low = scores <= self.state.threshold.gate_level[rows][:, None]
        doubted = np.zeros_like(valid)
        openness = self.state.context.openness(rows)
        closed = openness < MOST_OPENNESS
        if not closed.all():
            doubted[~closed] = doubtful(self.state.pending, rows[~closed], places[~closed], ~low[~closed])
            labelled, anomalous, doubted = labelled & ~doubted, anomalous & ~doubted, doubted & valid
        calm = (self.state.pending.last_verdict[rows] <= NORMAL)[:, None]
        accepted = unlabelled & calm & low
        few_labels = (self.state.threshold.labelled_count[rows] < LABELLED_ENOUGH)[:, None]
        self.state.threshold.update(rows, scores, labelled, unlabelled & calm, openness)
        dropped = (unlabelled & ~accepted) | doubted
        normal = labelled | accepted
        outcome = np.where(normal, LEARNED_NORMAL, np.where(anomalous, LEARNED_ANOMALY, DROPPED))
        which = np.nonzero(valid)
        self.state.pending.learned[rows[which[0]], at[1][which]] = outcome[which]
        done.normal += int(normal.sum())
        done.anomaly += int(anomalous.sum())
        done.dropped += int(dropped.sum())
        statistics = labelled | (accepted & few_labels)
        if closed.any():
            slots = places[closed] % self.state.pending.kept_readings
            readings = take_ring(self.state.pending.readings, rows[closed], slots)
            bare = scores[closed] - self.state.head.added(rows[closed], places[closed])
            verdicts = labelled[closed], anomalous[closed]
            renewed = self.state.head.learn(rows[closed], readings, bare, *verdicts, self.state.scaler)
            for row, made_again in renewed.items():
                self.state.threshold.expect(row, made_again)
        if not closed.all():
            self.state.threshold.expected[rows[~closed]] = -np.inf
        self._learn_batch(rows, places, normal, anomalous, statistics, class_weights, done)
        return more

    def _learn_batch(
        self,
        rows: NDArray[np.int64],
        places: NDArray[np.int64],
        normal: NDArray[np.bool_],
        anomalous: NDArray[np.bool_],
        statistics: NDArray[np.bool_],
        class_weights: NDArray[np.float64],
        done: Learned,
    ) -> None:
        """Scaler, error variances and model learn (A, B) events; ``statistics`` says which move the first two."""
        pending = self.state.pending
        derived = self.state.context.derive_again(rows, places, pending.readings, pending.memory)
        verdict = pending.verdict[rows[:, None], places % pending.capacity]
        self.state.scaler.update(rows, derived, statistics)
        self.state.stillness.update(rows, derived, self.state.scaler.mean, statistics)
        weights = class_weights[np.where(anomalous, verdict, NORMAL)]
        if anomalous.any():
            openness = self.state.context.openness(rows)[:, None]
            weights *= np.where(anomalous, 1 - openness * (1 - novelty(pending, rows, places)), 1)
        done.losses += self.state.network.learn(
            rows,
            Matured(
                np.repeat(rows, normal.shape[1]).reshape(normal.shape),
                derived,
                normal,
                anomalous,
                weights,
            ),
            statistics,
            pending.order[rows[:, None], places % pending.orders] if self.state.shared else np.empty(0, np.int64),
            Sensors(self.state.context, self.state.scaler, self.state.scoring, self.state.coupling),
        )
