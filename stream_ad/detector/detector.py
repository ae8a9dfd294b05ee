"""A detector for all sensors that have the same features: scores at once, learns at fixed points.

Order for every event: derive, scale, score, keep; for every learn batch: what has matured is
split into normal, anomalous and dropped, then scaler, error variances, threshold and model learn.
Everything that learning changes, changes in ``learn`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.context import Context
from stream_ad.detector.drift import Drift
from stream_ad.detector.head import MOST_OPENNESS, Head
from stream_ad.detector.network import Network, Sensors
from stream_ad.detector.pending import (
    DROPPED,
    LEARNED_ANOMALY,
    LEARNED_NORMAL,
    NORMAL,
    UNLABELLED,
    Pending,
)
from stream_ad.detector.rows import Rows, derived_index
from stream_ad.detector.scaler import Scaler
from stream_ad.detector.scoring import Scoring, shares
from stream_ad.detector.threshold import LABELLED_ENOUGH, Threshold

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from stream_ad.detector.config import DetectorOptions

CATCH_UP_BATCHES = 2  # learn batches a sensor may take at one learn point: a backlog of verdicts drains
WARMUP_WEIGHT = 64.0  # events that the whole warm-up counts as, once verdicts speak


@dataclass(frozen=True, slots=True, eq=False)
class Arrived:
    """What scoring gave for N events."""

    score: NDArray[np.float64]  # (N,) published: 1 or above is an anomaly
    live: NDArray[np.bool_]  # (N,) False in warm-up
    places: NDArray[np.int64]  # (N,) number of each event among its sensor's
    blamed_rows: NDArray[np.int64]  # (K,) which of the N are anomalies
    blamed: NDArray[np.int64]  # (K, top) their features, the largest share first
    expected: NDArray[np.float64]  # (K, top) in the feature's own unit
    shares: NDArray[np.float64]  # (K, top)
    lost: int  # events that had to leave memory before anyone learned them


@dataclass(slots=True)
class Learned:
    """What one call of ``learn`` did."""

    normal: int = 0
    anomaly: int = 0
    dropped: int = 0
    drift: int = 0
    losses: list[float] = field(default_factory=list)


class Detector:
    """See the module. Sensors are rows; ``append`` and ``remove`` add and drop them."""

    def __init__(self, features: int, options: DetectorOptions, device: torch.device) -> None:
        learning = options.learning
        self.features, self.options = features, options
        self.batch = learning.batch_events
        self.shared = options.detector.models == "shared"
        self.horizon_ns = None if learning.label_horizon_seconds is None else int(learning.label_horizon_seconds * 1e9)
        capacity = -(-(learning.label_horizon_events + 4 * self.batch) // self.batch) * self.batch
        self.context = Context(features)
        self.scaler = Scaler(features)
        self.scoring = Scoring(features)
        self.threshold = Threshold(
            features, window=options.threshold.window_events, rate=options.threshold.false_alarm_rate
        )
        self.pending = Pending(features, capacity=capacity, horizon_events=learning.label_horizon_events)
        self.drift = Drift(features, threshold=options.drift.threshold)
        self.head = Head(features)
        self.network = Network(features, options, device)
        self.arrived = 0  # events so far, of all sensors
        self.gate_seen = np.empty(0, np.int64)
        self.seen = np.empty(0, np.int64)  # (S,) events of the sensor at its last learn point

    def parts(self) -> dict[str, Rows]:
        """State that has a row per sensor."""
        return {
            "context.": self.context,
            "scaler.": self.scaler,
            "scoring.": self.scoring,
            "threshold.": self.threshold,
            "pending.": self.pending,
            "drift.": self.drift,
            "head.": self.head,
        }

    @property
    def size(self) -> int:
        return self.pending.size

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts().values()) + self.network.nbytes

    def append(self, key: int) -> int:
        """Add a sensor; its key decides its initial weights. Returns its row."""
        for part in self.parts().values():
            part.append(1)
        self.gate_seen = np.append(self.gate_seen, 0)
        self.seen = np.append(self.seen, 0)
        if not self.shared or self.network.size == 0:
            self.network.append(key)
        return self.size - 1

    def adopt(self, other: Detector, row: int, *, key: int, positions: NDArray[np.int64]) -> int:
        """Add a sensor that comes from a narrower detector, with all it knows. Returns its row here.

        Args:
            positions: (F_other,) where the other's features stand among this one's.
        """
        fresh_model = not self.shared or self.network.size == 0
        new = self.append(key)
        for name, part in self.parts().items():
            part.copy_row(other.parts()[name], row, positions=positions)
        self.gate_seen[new], self.seen[new] = other.gate_seen[row], other.seen[row]
        if fresh_model:
            self.network.embed(other.network, 0 if self.shared else row, positions=positions)
        return new

    def remove(self, row: int) -> None:
        """Drop a sensor; the last one takes its row."""
        last = self.size - 1
        for part in self.parts().values():
            part.remove(row)
        for array in (self.gate_seen, self.seen):
            array[row] = array[last]
        self.gate_seen, self.seen = self.gate_seen[:last], self.seen[:last]
        self.network.remove_sensor(row, last)

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Everything learned and kept, by name."""
        arrays = {prefix + "gate_seen": self.gate_seen, prefix + "seen": self.seen}
        for name, part in self.parts().items():
            arrays.update(part.state(prefix + name))
        arrays.update(self.network.state(prefix))
        return arrays

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]], *, arrived: int) -> None:
        """Take over what ``state`` gave; ValueError or KeyError when it does not fit these options."""
        for name, part in self.parts().items():
            part.load(prefix + name, arrays)
        self.network.load(prefix, arrays)
        self.gate_seen = arrays[prefix + "gate_seen"].astype(np.int64)
        self.seen = arrays[prefix + "seen"].astype(np.int64)
        self.arrived = arrived
        sizes = {part.size for part in self.parts().values()} | {len(self.gate_seen), len(self.seen)}
        models = self.network.size
        if len(sizes) != 1 or models != (min(1, self.size) if self.shared else self.size):
            raise ValueError(f"{prefix}*: rows {sorted(sizes)}, models {models}")

    # ---------------------------------------------------------------- scoring

    def arrive(
        self,
        rows: NDArray[np.int64],
        values: NDArray[np.float64],
        *,
        times: NDArray[np.int64],
        ids: NDArray[np.uint64],
        order: NDArray[np.int64],
    ) -> Arrived:
        """Score the next events and keep them.

        The caller sees to it that no learn point lies between them (``until_learning``).

        Args:
            rows: (N,) sensors, in record order.
            values: (N, F), NaN where missing.
            times: (N,) event times, ns.
            ids: (N,) hashes of the event ids.
            order: (N,) rising numbers that say which of two events of different sensors came first.
        """
        sensors, column = np.unique(rows, return_inverse=True)
        counts = np.bincount(column)
        by_sensor = np.argsort(column, kind="stable")
        step = np.empty(len(rows), np.int64)  # the how-manieth of its sensor here
        step[by_sensor] = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        places = self.pending.count[rows] + step
        log_score = np.empty(len(rows))
        # (N, d) each: derived inputs, reconstruction, and what each input adds to the two sums of the score
        derived, rebuilt, first, second = (np.empty((len(rows), self.network.width), np.float32) for _ in range(4))
        # Sensors with few events here are not padded to the length of the busiest.
        bucket = np.ceil(np.log2(np.maximum(counts, 8))).astype(np.int64)
        for size in np.unique(bucket).tolist():
            chosen = np.flatnonzero(bucket == size)
            new_column = np.full(len(sensors), -1)
            new_column[chosen] = np.arange(len(chosen))
            inside = np.flatnonzero(new_column[column] >= 0)
            at = step[inside], new_column[column[inside]]
            grid = np.full((int(counts[chosen].max()), len(chosen), self.features), np.nan)
            grid[at] = values[inside]
            log_score[inside], *grids = self._score(sensors[chosen], grid, at)
            for flat, some in zip((derived, rebuilt, first, second), grids, strict=True):
                flat[inside] = some[at]
        level = self.threshold.log_level[rows]
        with np.errstate(over="ignore"):
            score = np.exp(log_score - level)  # 0 while there is no threshold
        flagged = score >= 1
        live = (places >= self.options.learning.warmup_events) & np.isfinite(level)
        lost = self.pending.push(
            rows,
            places,
            ids=ids,
            times=times,
            order=order,
            log_score=log_score,
            flagged=flagged,
            derived=derived,
        )
        self.arrived += len(rows)
        blamed_rows = np.flatnonzero(flagged)
        parts = shares((first[blamed_rows], second[blamed_rows]), self.context.openness(rows[blamed_rows]))
        return Arrived(
            score,
            live,
            places,
            blamed_rows,
            *self._explain(rows[blamed_rows], derived[blamed_rows], rebuilt[blamed_rows], parts),
            lost,
        )

    def peek(self, row: int, values: NDArray[np.float64]) -> float:
        """The score that a sensor's next event would have; nothing moves.

        Args:
            row: The sensor.
            values: (F,), NaN where missing.
        """
        moving = self.context, self.scoring
        before = [part.state("") for part in moving]
        grid = values[None, None, :]
        log_score, *_ = self._score(np.array([row]), grid, (np.zeros(1, np.int64), np.zeros(1, np.int64)))
        for part, state in zip(moving, before, strict=True):
            part.load("", state)
        with np.errstate(over="ignore"):
            return float(np.exp(log_score[0] - self.threshold.log_level[row]))

    def _score(
        self, sensors: NDArray[np.int64], grid: NDArray[np.float64], at: tuple[Any, Any]
    ) -> tuple[NDArray[Any], ...]:
        """Of a grid of values (T, A, F) with the real events ``at``: the log score of each of these;
        grids (T, A, d) of derived inputs, reconstructions and the two parts of the score."""
        derived = self.context.derive(sensors, grid)
        scaled, observed = self.scaler.scale(sensors, derived.transpose(1, 0, 2))  # (A, T, d)
        models = np.zeros(len(sensors), np.int64) if self.shared else sensors
        rebuilt = self.network.rebuild(models, scaled, at).transpose(1, 0, 2)
        weights, openness = self.context.weights(sensors), self.context.openness(sensors)
        log_score, parts = self.scoring.score(
            sensors, scaled.transpose(1, 0, 2), observed.transpose(1, 0, 2), rebuilt, weights, openness
        )
        say = self.head.say(sensors, openness)
        some = np.flatnonzero(say)
        if len(some):
            readings = scaled[some, :, : self.features].transpose(1, 0, 2)
            log_score[:, some] += say[some] * self.head.log_odds(sensors[some], readings)
        return log_score[at], derived, rebuilt, *parts

    def _explain(
        self,
        rows: NDArray[np.int64],
        derived: NDArray[np.float32],
        rebuilt: NDArray[np.float32],
        parts: NDArray[np.float64],
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """The features that contributed most to K anomalies: which, expected values, shares; (K, top) each."""
        top = min(self.options.detector.contributions, self.features)
        by_feature = parts[:, derived_index(self.features)].sum(axis=1)  # (K, F)
        say = self.head.say(rows, self.context.openness(rows))
        some = np.flatnonzero(say)
        if len(some):
            scaled, _ = self.scaler.scale(rows[some], derived[some, : self.features])
            by_feature[some] += say[some, None] * self.head.blame(rows[some], scaled)
        share = by_feature / np.maximum(by_feature.sum(axis=1, keepdims=True), 1e-12)
        blamed = np.argsort(-share, axis=1, kind="stable")[:, :top]
        usual = self.scaler.unscale(rows, rebuilt)[:, : self.features] + self.context.shift[rows]
        return blamed, np.take_along_axis(usual, blamed, axis=1), np.take_along_axis(share, blamed, axis=1)

    # --------------------------------------------------------------- learning

    def until_learning(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,) events that a sensor's model will take before it learns next: 1 to the size of a batch."""
        so_far = np.full(len(rows), self.arrived) if self.shared else self.pending.count[rows]
        return self.batch - so_far % self.batch

    def due(self) -> NDArray[np.int64]:
        """Sensors whose learn point has just been reached."""
        count = self.pending.count[: self.size]
        if not self.shared:
            return np.flatnonzero((count % self.batch == 0) & (count > self.seen))
        return np.flatnonzero(count > self.seen) if self.arrived % self.batch == 0 else np.empty(0, np.int64)

    def learn(self, rows: NDArray[np.int64], class_weights: NDArray[np.float64]) -> Learned:
        """Learn what has matured.

        Args:
            rows: (A,) what ``due`` gave.
            class_weights: (K + 1,) weight in the loss of normal and of each anomaly class.
        """
        done = Learned()
        self._watch(rows, done)
        if self.options.learning.enabled:
            warm = self.pending.count[rows] <= self.options.learning.warmup_events
            if warm.any():
                self._warm_up(rows[warm], class_weights, done)
            mature = rows[~warm]
            for _ in range(CATCH_UP_BATCHES):
                if len(mature):
                    mature = self._learn_matured(mature, class_weights, done)
        self.seen[rows] = self.pending.count[rows]
        return done

    def _watch(self, rows: NDArray[np.int64], done: Learned) -> None:
        """Gate and drift look at everything that arrived, a full batch of a sensor at a time."""
        rows = rows[self.pending.count[rows] - self.gate_seen[rows] >= self.batch]
        if not len(rows):
            return
        self.gate_seen[rows] = self.pending.count[rows]
        places = self.pending.latest(rows, self.batch)
        at = rows[:, None], places % self.pending.capacity
        self.context.update_gate(rows, self.pending.derived[at])
        if self.options.drift.enabled:
            rank = self.threshold.rank(rows, self.pending.log_score[at])
            done.drift += self.drift.update(rows, rank)

    def _warm_up(self, rows: NDArray[np.int64], class_weights: NDArray[np.float64], done: Learned) -> None:
        """Take the newest events for normal at once; they are learned again when they have matured."""
        places = self.pending.latest(rows, self.batch)
        at = rows[:, None], places % self.pending.capacity
        normal = (places >= self.seen[rows][:, None]) & (self.pending.verdict[at] <= NORMAL)
        settled = self.pending.count[rows] > self.options.learning.warmup_events // 2
        scores = self.pending.log_score[at]
        self.threshold.update(rows, scores, labelled=np.zeros_like(normal), unlabelled=normal & settled[:, None])
        self._learn_batch(rows, places, normal, np.zeros_like(normal), normal, class_weights, done)
        ended = rows[self.pending.count[rows] == self.options.learning.warmup_events]
        self.scaler.forget(ended, WARMUP_WEIGHT)
        self.scoring.forget(ended, WARMUP_WEIGHT)

    def _learn_matured(
        self, rows: NDArray[np.int64], class_weights: NDArray[np.float64], done: Learned
    ) -> NDArray[np.int64]:
        """Learn one batch of what is ready; returns the sensors that have a whole batch more."""
        places, valid, has_more = self.pending.take(rows, self.batch, self.horizon_ns)
        more, some = rows[has_more], valid.any(axis=1)
        rows, places, valid = rows[some], places[some], valid[some]
        if not len(rows):
            return more
        at = rows[:, None], places % self.pending.capacity
        verdict, scores = self.pending.verdict[at], self.pending.log_score[at]
        labelled, anomalous = valid & (verdict == NORMAL), valid & (verdict > NORMAL)
        unlabelled = valid & (verdict == UNLABELLED)
        calm = (self.pending.last_verdict[rows] <= NORMAL)[:, None]
        accepted = unlabelled & calm & (scores <= self.threshold.gate_level[rows][:, None])
        few_labels = (self.threshold.labelled_count[rows] < LABELLED_ENOUGH)[:, None]
        self.threshold.update(rows, scores, labelled=labelled, unlabelled=unlabelled & calm)
        dropped = unlabelled & ~accepted
        outcome = np.select([labelled | accepted, anomalous], [LEARNED_NORMAL, LEARNED_ANOMALY], DROPPED)
        which = np.nonzero(valid)
        self.pending.learned[rows[which[0]], at[1][which]] = outcome[which]
        done.normal += int((labelled | accepted).sum())
        done.anomaly += int(anomalous.sum())
        done.dropped += int(dropped.sum())
        statistics = labelled | (accepted & few_labels)
        closed = self.context.openness(rows) < MOST_OPENNESS
        if closed.any():
            readings = self.pending.derived[at][closed, :, : self.features]
            self.head.learn(rows[closed], readings, labelled[closed], anomalous[closed], self.scaler)
        self._learn_batch(rows, places, labelled | accepted, anomalous, statistics, class_weights, done)
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
        at = rows[:, None], places % self.pending.capacity
        derived, verdict = self.pending.derived[at], self.pending.verdict[at]
        self.scaler.update(rows, derived, statistics)
        done.losses += self.network.learn(
            rows,
            derived,
            normal,
            anomalous,
            class_weights[np.where(anomalous, verdict, NORMAL)],
            statistics,
            self.pending.order[at],
            Sensors(self.context, self.scaler, self.scoring),
        )
