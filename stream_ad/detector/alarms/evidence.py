"""Evidence that something is wrong with a sensor, and the incidents that it opens at the promised rate.

1. Three channels say how unusual an event is: its log score, its largest coupling residual and its largest error,
   each of the latter against its own usual extremes.
2. The surprise u = -ln p of a channel is read from decayed histograms of presumed normal events, the lesser of a long
   and a short memory. Memory grows with age: the first thousand events of a sensor are chaos, and soon forgotten.
3. Each channel has two statistics: u, for spikes, and G = max(0, G + u - 5), for what lasts. An excursion of a
   statistic goes from the event that lifts it off zero to the one at which it is back, at the latest after 16 usual
   events. Excursions are independent where events are not.
4. The maxima of normal excursions go into a histogram once a label could have come. The level of a statistic is where
   they exceed it at a sixth of the budget.
5. An incident is open while a statistic has reached its level and its excursion lasts.

It fails on a machine that really changes: no calibration foresees that, and it costs an incident.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.alarms.calibration import calibrate, note_labels
from stream_ad.detector.alarms.channels import CHANNELS
from stream_ad.detector.alarms.excursions import (
    ACCEPTED,
    EARLY,
    JUDGED,
    NEVER,
    PENDING,
    STATISTICS,
    UNSEEN,
    observe,
)
from stream_ad.detector.alarms.levels import ROW_BINS, TOP_BINS
from stream_ad.detector.alarms.young_pool import YoungPool
from stream_ad.detector.feedback.event_buffer import NORMAL
from stream_ad.detector.row_store import ColumnSpec, SensorTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.feedback.event_buffer import EventBuffer


class Evidence(SensorTable):
    """Histograms, excursions and levels of each sensor.

    Args:
        features: F.
        capacity: C, events that a label can still come for.
        budgets: K, rates of false incidents that are decided side by side.
        warmup_events: Events of a sensor before anything alarms.
    """

    counts: NDArray[np.float32]  # (S, 2, 3, B) decayed number of events by bin, long and short memory
    totals: NDArray[np.float32]  # (S, 2, 3) decayed number of all events
    table: NDArray[np.uint16]  # (S, 3, B + 1) surprise by left edge of the bin, in 1/1024 nat
    ready: NDArray[np.bool_]  # (S, 3) whether there is a table
    far_from: NDArray[np.uint8]  # (S, 3) first bin that is far from usual
    far_run: NDArray[np.int32]  # (S, 3) far events of the present run among those learned
    usual_below: NDArray[np.float32]  # (S, 3) value of the channel up to which an event is usual
    resting: NDArray[np.bool_]  # (S,) whether a usual event changes nothing
    usual_run: NDArray[np.int32]  # (S, 3) usual events in a row, while an excursion lasts
    evidence: NDArray[np.float32]  # (S, 6) nats
    top: NDArray[np.float32]  # (S, 6) maximum of the present excursion
    start: NDArray[np.int64]  # (S, 6) first event of the present excursion, -1 for none
    fault: NDArray[np.bool_]  # (S, 6) whether a label says that the present excursion is a fault
    tops: NDArray[np.float32]  # (S, 6, T) decayed number of normal excursions by their maximum
    events: NDArray[np.float32]  # (S,) decayed number of events that they came from
    pending_end: NDArray[np.int64]  # (S, 6, P) last event of each excursion that waits for a label
    pending_length: NDArray[np.uint16]  # (S, 6, P) its events
    pending_top: NDArray[np.float32]  # (S, 6, P) its maximum; negative for a free slot
    pending_fault: NDArray[np.bool_]  # (S, 6, P) whether a label says that it is a fault
    early: NDArray[np.bool_]  # (S,) whether levels rest on what sensors had in common that were young before
    learned: NDArray[np.int64]  # (S,) events before this number are in the histograms
    label_delay: NDArray[np.float32]  # (S,) mean number of events between an event and its label
    labels: NDArray[np.int32]  # (S,) labels behind it
    refreshed: NDArray[np.int64]  # (S,) events of the sensor when levels were last set
    beyond: NDArray[np.int32]  # (S,) far events since the last learn point
    levels: NDArray[np.float32]  # (S, K, 6) level of each statistic
    alarming: NDArray[np.bool_]  # (S, K, 6) whether it was reached in the present excursion
    interrupted: NDArray[np.bool_]  # (S,) whether it is muted, or an incident is to end
    muted: NDArray[np.bool_]  # (S, K) no incident opens before the present excursions are over
    began: NDArray[np.int64]  # (S,) first event of which there is evidence
    first: NDArray[np.int64]  # (S, K) number of the event that opened the latest incident, -1 for none
    last: NDArray[np.int64]  # (S, K) number of its latest event that alarmed
    peak: NDArray[np.float32]  # (S, K) highest evidence over level of that incident
    peak_event: NDArray[np.int64]  # (S, K) number of that event
    ending: NDArray[np.int8]  # (S, K) why the incident ends at the next event, OVER where it does not
    codes: NDArray[np.uint8]  # (S, C, 2) bins of the largest residual and the largest error of the latest events

    def __init__(self, features: int, *, capacity: int, budgets: int, warmup_events: int) -> None:
        k, j, pending = budgets, STATISTICS, (STATISTICS, PENDING)
        whole = ColumnSpec((), np.int64)
        super().__init__(
            features,
            {
                "counts": ColumnSpec((2, CHANNELS, ROW_BINS), np.float32),
                "totals": ColumnSpec((2, CHANNELS), np.float32),
                "table": ColumnSpec((CHANNELS, ROW_BINS + 1), np.uint16),
                "ready": ColumnSpec((CHANNELS,), np.bool_),
                "far_from": ColumnSpec((CHANNELS,), np.uint8, ROW_BINS),
                "far_run": ColumnSpec((CHANNELS,), np.int32),
                "usual_below": ColumnSpec((CHANNELS,), np.float32, np.inf),
                "resting": ColumnSpec((), np.bool_),
                "usual_run": ColumnSpec((CHANNELS,), np.int32),
                "evidence": ColumnSpec((j,), np.float32),
                "top": ColumnSpec((j,), np.float32),
                "start": ColumnSpec((j,), np.int64, NEVER),
                "fault": ColumnSpec((j,), np.bool_),
                "tops": ColumnSpec((j, TOP_BINS), np.float32),
                "events": ColumnSpec((), np.float32),
                "pending_end": ColumnSpec(pending, np.int64),
                "pending_length": ColumnSpec(pending, np.uint16),
                "pending_top": ColumnSpec(pending, np.float32, -1.0),
                "pending_fault": ColumnSpec(pending, np.bool_),
                "early": ColumnSpec((), np.bool_),
                "learned": whole,
                "label_delay": ColumnSpec((), np.float32),
                "labels": ColumnSpec((), np.int32),
                "refreshed": whole,
                "beyond": ColumnSpec((), np.int32),
                "levels": ColumnSpec((k, j), np.float32, np.inf),
                "alarming": ColumnSpec((k, j), np.bool_),
                "interrupted": ColumnSpec((), np.bool_),
                "muted": ColumnSpec((k,), np.bool_),
                "began": whole,
                "first": ColumnSpec((k,), np.int64, NEVER),
                "last": ColumnSpec((k,), np.int64, NEVER),
                "peak": ColumnSpec((k,), np.float32),
                "peak_event": ColumnSpec((k,), np.int64, NEVER),
                "ending": ColumnSpec((k,), np.int8),
                "codes": ColumnSpec((capacity, 2), np.uint8, UNSEEN),
            },
        )
        self.capacity, self.budgets, self.warmup_events = capacity, budgets, warmup_events
        self.first_alarm = np.array([warmup_events, min(EARLY, warmup_events)])
        """(2,) events of a sensor before anything alarms: by its own levels, by those of other sensors."""
        self.pool = YoungPool()

    def observe(
        self,
        rows: NDArray[np.int64],
        event_numbers: NDArray[np.int64],
        channels: NDArray[np.float64],
        tables: tuple[NDArray[np.float64], NDArray[np.float64]],
        stuck: NDArray[np.float64],
        planned: NDArray[np.int8],
    ) -> tuple[NDArray[np.float64], NDArray[np.int8], NDArray[np.int8]]:
        """Weigh the evidence of the next events.

        Args:
            rows: (N,) sensors, in the order of arrival.
            event_numbers: (N,) number of each event among those of its sensor.
            channels: (3, N) from ``channels_of``.
            tables: (S,) mean autocorrelation gates: where they are nearly closed, rows of a table say nothing of one
                another, and each event is decided alone, by its log score; (S, K) the level of the log score then.
            stuck: (N,) repeats over what makes a reading stuck.
            planned: (N,) not 0 in a planned stop, in which nothing counts.

        Returns:
            (N, K) evidence over level, 1 or above where an incident is open; (N,) kind of the alarm at the first
            budget; (N,) why its incident ended at this event, other than by being over.
        """
        ratio = np.zeros((len(rows), self.budgets))
        kind, ending = np.zeros(len(rows), np.int8), np.zeros(len(rows), np.int8)
        sensors = (
            (self.table, self.ready, self.levels, self.began, self.early, self.codes, self.usual_below, *tables),
            (self.evidence, self.top, self.start, self.fault, self.usual_run, self.beyond, self.resting),
            (
                *(self.pending_end, self.pending_length, self.pending_top, self.pending_fault, self.tops),
                self.alarming,
            ),
            (self.interrupted, self.muted, self.first, self.last, self.peak, self.peak_event, self.ending),
        )
        new = channels, stuck, planned
        observe(rows, event_numbers, new, self.first_alarm, sensors, (ratio, kind, ending))
        return ratio, kind, ending

    def live_from(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (N,) the number of the first event of each sensor (N,) that may alarm."""
        first: NDArray[np.int64] = self.first_alarm[self.early[rows].astype(np.int64)]
        return first

    def note_labels(
        self,
        rows: NDArray[np.int64],
        event_numbers: NDArray[np.int64],
        labelled: NDArray[np.bool_],
        anomalous: NDArray[np.bool_],
        count: NDArray[np.int64],
    ) -> None:
        """Note how late labels come, and mark the excursions around labelled anomalies: they are no normal ones.

        Args:
            rows: (A,) different sensors.
            event_numbers: (A, B) numbers of events.
            labelled: (A, B) whether each is labelled normal.
            anomalous: (A, B) whether each is labelled an anomaly.
            count: (S,) events of each sensor so far.
        """
        waiting = self.pending_end, self.pending_length, self.pending_top, self.pending_fault
        delays = self.label_delay, self.labels, count
        note_labels(rows, event_numbers, labelled, anomalous, (*waiting, self.start, self.fault), delays)

    def judge(self, rows: NDArray[np.int64], pending: EventBuffer) -> None:
        """End the latest incidents of the sensors (A,) whose first event, or peak, has a label that says normal.

        The excursions that opened them are not taken up again; the next ones are.

        Args:
            rows: (A,) different sensors at their learn point.
            pending: Holds their labels.
        """
        oldest = np.maximum(pending.count[rows] - pending.capacity, 0)[:, None]  # in memory
        recent = (self.last[rows] >= oldest).any(axis=1)
        rows, oldest = rows[recent], oldest[recent]
        if not len(rows):
            return
        marks = np.stack([self.first[rows], self.peak_event[rows]])  # (2, A, K)
        labels = pending.label[rows[:, None], marks % pending.capacity]
        judged, budget = np.nonzero(((marks >= oldest) & (labels == NORMAL)).any(axis=0))
        sensors = rows[judged]
        self.ending[sensors, budget], self.muted[sensors, budget], self.interrupted[sensors] = JUDGED, True, True
        self.first[sensors, budget] = self.peak_event[sensors, budget] = NEVER  # judged once

    def accept(self, rows: NDArray[np.int64]) -> None:
        """End the incidents of the sensors (A,), which are in a new normal."""
        self.ending[rows], self.muted[rows], self.interrupted[rows] = ACCEPTED, True, True

    def learn(
        self, rows: NDArray[np.int64], pending: EventBuffer, horizon_ns: int | None, rates: NDArray[np.float64]
    ) -> None:
        """Take in the events that are known or presumed to be normal by now, and set the levels anew when due.

        Args:
            rows: (A,) different sensors at their learn point.
            pending: Holds their labels and log scores.
            horizon_ns: Event time that an event waits for a label, ns; None for no limit.
            rates: (A, K) tolerated false incidents an event.
        """
        events = pending.count, pending.newest_time, pending.times, pending.label, pending.log_score, self.codes
        histograms = (
            *(self.counts, self.totals, self.table, self.ready, self.far_run, self.learned, self.refreshed),
            *(self.early, self.usual_below, self.resting, self.far_from),
        )
        excursions = self.pending_end, self.pending_top, self.pending_fault, self.tops, self.events, self.levels
        delays = self.label_delay, self.labels
        limits = pending.horizon_events, self.warmup_events, -1 if horizon_ns is None else horizon_ns
        pool = self.pool.counts, self.pool.tops, self.pool.events, *self.pool.published
        calibrate(rows, events, (*delays, *limits), histograms, excursions, pool, rates)

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the rows in use, (S, *shape) by column, and the pool of young sensors, for a snapshot."""
        return {**super().state(prefix), **self.pool.state(f"{prefix}pool.")}

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Restore the rows (S, *shape) and the pool that ``state`` returned.

        Raises:
            NonsenseError: They do not fit.
        """
        super().load(prefix, arrays)
        self.pool.load(f"{prefix}pool.", arrays)
