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

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.alarms.levels import (
    CAP,
    FIXED,
    MOST,
    ROW_BINS,
    ROW_LOW,
    ROW_WIDTH,
    SPIKE_SHAPE,
    SUSTAINED_SHAPE,
    TOP_BINS,
    level,
    surprise,
    surprise_table,
    top_bin,
)
from stream_ad.detector.feedback.event_buffer import LOWEST_SCORE, NORMAL, SCORE_STEPS, UNLABELLED
from stream_ad.detector.row_store import ColumnSpec, SensorTable
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.feedback.event_buffer import EventBuffer

CHANNELS, STATISTICS = 3, 6
SPIKE, SUSTAINED, STUCK = 1, 2, 3  # kinds of alarms; 0 for none
OVER, ACCEPTED, JUDGED = 0, 1, 2  # why an incident ends
STEPS = 1024.0  # channels are rounded to 1/1024, so that all processors and devices decide alike
EXTREME_SCALE, EXTREME_SHIFT, LEAST_EXTREME = 3.0, 6.0, 1e-5  # map the log of an extreme to the range of the histogram

USUAL, QUIET = 3.0, 16  # surprise below is usual; so many usual events in a row end an excursion
SPIKE_LOSS, SUSTAINED_LOSS = 3.0, 5.0  # nats an event that evidence loses, for excursions of u and of G
FAR, RUN_EVENTS, RUN_RECOVERY = 7.0, 16, 4  # events of one run with a surprise above that count in the histogram
MEMORY, SHORTER, AGE_SHARE, YOUNG = 131_072.0, 8.0, 2.0, 256.0  # a histogram forgets in half a sensor's age
FIRST_EVENTS = 32  # events behind a histogram before it says anything
LATE = 600  # events before residuals and errors alarm
REFRESH_SHARE = 64  # levels are set anew when a sixty-fourth of what they rest on is new
UNLABELLED_WAIT = 128  # events that a sensor without labels waits, so that a fault does not count as usual at once
LONGER, BATCHES = 1.25, 32  # of the mean delay of its labels, and so many events more, that a sensor with labels waits
DELAY_LABELS = 64.0  # labels that the mean delay looks back
PENDING = 16  # excursions of a statistic that wait for a label
AROUND = 2  # events around an excursion whose labels speak of it
UNSEEN = 255  # code of an event that no histogram counts
NEVER = -1  # first event of an excursion that has not begun


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
    far_run: NDArray[np.int32]  # (S, 3) far events of the present run among those learned
    usual_run: NDArray[np.int32]  # (S, 3) usual events in a row
    evidence: NDArray[np.float32]  # (S, 6) nats
    top: NDArray[np.float32]  # (S, 6) maximum of the present excursion
    start: NDArray[np.int64]  # (S, 6) first event of the present excursion, -1 for none
    fault: NDArray[np.bool_]  # (S, 6) whether a label says that the present excursion is a fault
    tops: NDArray[np.float32]  # (S, 6, T) decayed number of normal excursions by their maximum
    events: NDArray[np.float32]  # (S,) decayed number of events that they came from
    pending_end: NDArray[np.int64]  # (S, 6, P) last event of each excursion that waits for a label
    pending_length: NDArray[np.int32]  # (S, 6, P) its events
    pending_top: NDArray[np.float32]  # (S, 6, P) its maximum; negative for a free slot
    pending_fault: NDArray[np.bool_]  # (S, 6, P) whether a label says that it is a fault
    learned: NDArray[np.int64]  # (S,) events before this number are in the histograms
    label_delay: NDArray[np.float32]  # (S,) mean number of events between an event and its label
    labels: NDArray[np.int32]  # (S,) labels behind it
    refreshed: NDArray[np.int64]  # (S,) events of the sensor when levels were last set
    beyond: NDArray[np.int32]  # (S,) far events since the last learn point
    levels: NDArray[np.float32]  # (S, K, 6) level of each statistic
    alarming: NDArray[np.bool_]  # (S, K, 6) whether it was reached in the present excursion
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
                "far_run": ColumnSpec((CHANNELS,), np.int32),
                "usual_run": ColumnSpec((CHANNELS,), np.int32),
                "evidence": ColumnSpec((j,), np.float32),
                "top": ColumnSpec((j,), np.float32),
                "start": ColumnSpec((j,), np.int64, NEVER),
                "fault": ColumnSpec((j,), np.bool_),
                "tops": ColumnSpec((j, TOP_BINS), np.float32),
                "events": ColumnSpec((), np.float32),
                "pending_end": ColumnSpec(pending, np.int64),
                "pending_length": ColumnSpec(pending, np.int32),
                "pending_top": ColumnSpec(pending, np.float32, -1.0),
                "pending_fault": ColumnSpec(pending, np.bool_),
                "learned": whole,
                "label_delay": ColumnSpec((), np.float32),
                "labels": ColumnSpec((), np.int32),
                "refreshed": whole,
                "beyond": ColumnSpec((), np.int32),
                "levels": ColumnSpec((k, j), np.float32, np.inf),
                "alarming": ColumnSpec((k, j), np.bool_),
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

    def observe(
        self,
        rows: NDArray[np.int64],
        event_numbers: NDArray[np.int64],
        channels: NDArray[np.float64],
        tables: tuple[NDArray[np.bool_], NDArray[np.float64]],
        stuck: NDArray[np.float64],
        planned: NDArray[np.int8],
    ) -> tuple[NDArray[np.float64], NDArray[np.int8], NDArray[np.int8]]:
        """Weigh the evidence of the next events.

        Args:
            rows: (N,) sensors, in the order of arrival.
            event_numbers: (N,) number of each event among those of its sensor.
            channels: (3, N) from ``channels_of``.
            tables: (N,) whether each event is decided alone, by its log score, because rows of a table say nothing of
                one another; (N, K) the level of the log score then.
            stuck: (N,) repeats over what makes a reading stuck.
            planned: (N,) not 0 in a planned stop, in which nothing counts.

        Returns:
            (N, K) evidence over level, 1 or above where an incident is open; (N,) kind of the alarm at the first
            budget; (N,) why its incident ended at this event, other than by being over.
        """
        ratio = np.zeros((len(rows), self.budgets))
        kind, ending = np.zeros(len(rows), np.int8), np.zeros(len(rows), np.int8)
        running = self.evidence, self.top, self.start, self.fault, self.usual_run, self.beyond
        waiting = self.pending_end, self.pending_length, self.pending_top, self.pending_fault, self.tops
        known = self.table, self.ready, self.levels, self.codes, self.began
        incident = self.alarming, self.muted, self.first, self.last, self.peak, self.peak_event, self.ending
        late = self.warmup_events, max(self.warmup_events, LATE)
        new = channels, *tables, stuck, planned
        _observe(rows, event_numbers, new, late, known, running, waiting, incident, (ratio, kind, ending))
        return ratio, kind, ending

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
            labelled: (A, B) whether each has a label.
            anomalous: (A, B) whether it says anomaly.
            count: (S,) events of each sensor so far.
        """
        waiting = self.pending_end, self.pending_length, self.pending_top, self.pending_fault
        delays = self.label_delay, self.labels, count
        _note_labels(rows, event_numbers, labelled, anomalous, waiting, (self.start, self.fault), delays)

    def judge(self, row: int, event_number: int) -> None:
        """Take a label that says normal: it ends the incident of a sensor that the event opened, or is the peak of.

        The excursion is not taken up again; the next one is.
        """
        meant = (self.first[row] == event_number) | (self.peak_event[row] == event_number)
        self.ending[row, meant] = JUDGED
        self.muted[row, meant] = True

    def marks(self, row: int) -> list[int]:
        """Return the numbers of the events that opened, or are the peaks of, the latest incidents of a sensor."""
        marks = {*self.first[row].tolist(), *self.peak_event[row].tolist()} - {NEVER}
        return sorted(marks)

    def accept(self, rows: NDArray[np.int64]) -> None:
        """End the incidents of the sensors (A,), which are in a new normal."""
        self.ending[rows], self.muted[rows] = ACCEPTED, True

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
        histograms = self.counts, self.totals, self.table, self.ready, self.far_run, self.learned, self.refreshed
        waiting = self.pending_end, self.pending_length, self.pending_top, self.pending_fault
        excursions = self.tops, self.events, self.levels
        wait = np.full(len(rows), UNLABELLED_WAIT)
        known = self.labels[rows] > 0
        wait[known] = LONGER * self.label_delay[rows[known]] + BATCHES
        wait = np.minimum(wait, pending.horizon_events)
        _learn(
            rows,
            events,
            wait,
            self.warmup_events,
            -1 if horizon_ns is None else horizon_ns,
            histograms,
            waiting,
            excursions,
            rates,
        )


def channels_of(
    log_score: NDArray[np.float64], residuals: NDArray[np.float32], errors: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return (3, N) the channels of N events, on the scale of their histogram and rounded.

    Args:
        log_score: (N,).
        residuals: (N, F) coupling residuals over their usual extremes.
        errors: (N, F) errors of the readings over their usual extremes.
    """
    out = np.empty((CHANNELS, len(log_score)))
    _channels(log_score, residuals, errors, out)
    return out


@kernel
def _channels(
    log_score: NDArray[np.float64],
    residuals: NDArray[np.float32],
    errors: NDArray[np.float32],
    out: NDArray[np.float64],
) -> None:
    for n in range(len(log_score)):
        out[0, n] = np.rint(log_score[n] * STEPS) / STEPS
        largest, largest_error = np.float32(0), np.float32(0)
        for k in range(residuals.shape[1]):
            largest = max(largest, abs(residuals[n, k]))
            largest_error = max(largest_error, abs(errors[n, k]))
        for c, extreme in ((1, largest), (2, largest_error)):
            x = EXTREME_SCALE * np.log(np.float64(extreme) + LEAST_EXTREME) + EXTREME_SHIFT
            out[c, n] = np.rint(x * STEPS) / STEPS


@kernel
def _bin(value: float) -> int:
    return min(max(int((value - ROW_LOW) / ROW_WIDTH), 0), ROW_BINS - 1)


@kernel
def _end_excursion(s: int, j: int, event_number: int, running: Arrays, waiting: Arrays) -> None:
    """Let an excursion wait for a label; where too many wait, the smallest is decided at once."""
    start, top, fault = running
    pending_end, pending_length, pending_top, pending_fault, tops = waiting
    slot = 0
    for p in range(PENDING):
        if pending_top[s, j, p] < pending_top[s, j, slot]:
            slot = p
    smallest = pending_top[s, j, slot]
    if smallest >= 0 and top[s, j] <= smallest:  # the new one itself
        if not fault[s, j]:
            tops[s, j, top_bin(top[s, j])] += 1
    else:
        if smallest >= 0 and not pending_fault[s, j, slot]:
            tops[s, j, top_bin(smallest)] += 1
        pending_end[s, j, slot], pending_length[s, j, slot] = event_number, event_number - start[s, j]
        pending_top[s, j, slot], pending_fault[s, j, slot] = top[s, j], fault[s, j]
    start[s, j], fault[s, j] = NEVER, False


@kernel
def _observe(
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    new: Arrays,
    late: tuple[int, int],
    known: Arrays,
    running: Arrays,
    waiting: Arrays,
    incident: Arrays,
    out: Arrays,
) -> None:
    channels, alone, alarm_level, stuck, planned = new
    table, ready, levels, codes, began = known
    evidence, top, start, fault, usual_run, beyond = running
    alarming, muted, first, last, peak, peak_event, ending = incident
    out_ratio, out_kind, out_ending = out
    budgets, capacity = muted.shape[1], codes.shape[1]
    u = np.zeros(CHANNELS)
    for n in range(len(rows)):
        s, event_number = rows[n], event_numbers[n]
        at = event_number % capacity
        if planned[n]:
            codes[s, at, 0] = codes[s, at, 1] = UNSEEN
        else:
            codes[s, at, 0], codes[s, at, 1] = _bin(channels[1, n]), _bin(channels[2, n])
        for c in range(CHANNELS):
            u[c] = surprise(table, s, c, channels[c, n]) if ready[s, c] and not planned[n] else 0.0
            usual_run[s, c] = usual_run[s, c] + 1 if u[c] < USUAL else 0
            if planned[n]:
                usual_run[s, c] = QUIET
        beyond[s] += u[0] > FAR
        resting = stuck[n] < 1 or planned[n] != 0
        age = event_number - began[s]
        for j in range(STATISTICS):
            c = j % CHANNELS
            if not ready[s, c]:
                continue
            loss = SPIKE_LOSS if j < CHANNELS else SUSTAINED_LOSS
            held = max(0.0, evidence[s, j] + min(u[c], CAP) - loss)
            if usual_run[s, c] >= QUIET:
                held = 0.0
            if held > 0:
                if start[s, j] < 0:
                    start[s, j], top[s, j] = event_number, 0.0
                x = u[c] if j < CHANNELS else held
                top[s, j] = max(top[s, j], np.float32(x))
                resting = False
                if not alone[n] and age >= (late[0] if c == 0 else late[1]):
                    for k in range(budgets):
                        ratio = x / levels[s, k, j]
                        if ratio > out_ratio[n, k]:
                            out_ratio[n, k] = ratio
                            if k == 0:
                                out_kind[n] = SPIKE if j < CHANNELS else SUSTAINED
                        alarming[s, k, j] |= ratio >= 1
            elif start[s, j] >= 0:
                _end_excursion(s, j, event_number, (start, top, fault), waiting)
                for k in range(budgets):
                    alarming[s, k, j] = False
            evidence[s, j] = min(held, MOST)
        for k in range(budgets):
            if ending[s, k] != 0:
                if k == 0:
                    out_ending[n] = ending[s, k]
                ending[s, k] = 0
            muted[s, k] &= not resting
            is_open = False
            for j in range(STATISTICS):
                is_open |= alarming[s, k, j]
            if age >= late[0] and not planned[n]:
                if alone[n]:
                    nats = surprise(table, s, 0, channels[0, n])
                    ratio = nats / max(surprise(table, s, 0, alarm_level[n, k]), 1.0) if ready[s, 0] else 0.0
                    reached = channels[0, n] >= alarm_level[n, k]
                    out_ratio[n, k] = max(ratio, 1.0) if reached else min(ratio, BELOW)
                    is_open = reached
                    if k == 0:
                        out_kind[n] = SPIKE
                if stuck[n] >= out_ratio[n, k]:
                    out_ratio[n, k] = stuck[n]
                    if k == 0:
                        out_kind[n] = STUCK
                is_open |= stuck[n] >= 1
            if muted[s, k] or not is_open:
                out_ratio[n, k] = min(out_ratio[n, k], BELOW)
                if muted[s, k]:
                    for j in range(STATISTICS):
                        alarming[s, k, j] = False
            else:
                out_ratio[n, k] = max(out_ratio[n, k], 1.0)
                if event_number - last[s, k] > QUIET or first[s, k] < 0:
                    first[s, k], peak[s, k] = event_number, 0
                last[s, k] = event_number
                if out_ratio[n, k] > peak[s, k]:
                    peak[s, k], peak_event[s, k] = np.float32(out_ratio[n, k]), event_number
        if out_ratio[n, 0] < 1:
            out_kind[n] = 0


BELOW = float(np.nextafter(np.float64(1), np.float64(0)))  # evidence over level where no incident is open, at most


@kernel
def _note_labels(
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    labelled: NDArray[np.bool_],
    anomalous: NDArray[np.bool_],
    waiting: Arrays,
    running: Arrays,
    delays: Arrays,
) -> None:
    label_delay, labels, count = delays
    pending_end, pending_length, pending_top, pending_fault = waiting
    start, fault = running
    for a in range(len(rows)):
        s = rows[a]
        for b in range(event_numbers.shape[1]):
            if not labelled[a, b]:
                continue
            event_number = event_numbers[a, b]
            labels[s] += 1
            rate = 1 / min(np.float64(labels[s]), DELAY_LABELS)
            label_delay[s] += np.float32(rate * (count[s] - event_number - label_delay[s]))
            if not anomalous[a, b]:
                continue
            for j in range(STATISTICS):
                fault[s, j] |= start[s, j] >= 0 and event_number >= start[s, j] - AROUND
                for p in range(PENDING):
                    end = pending_end[s, j, p]
                    if pending_top[s, j, p] >= 0 and event_number < end + AROUND:
                        pending_fault[s, j, p] |= event_number >= end - pending_length[s, j, p] - AROUND


@kernel
def _learn(
    rows: NDArray[np.int64],
    events: Arrays,
    wait: NDArray[np.int64],
    warmup_events: int,
    horizon_ns: int,
    histograms: Arrays,
    waiting: Arrays,
    excursions: Arrays,
    rates: NDArray[np.float64],
) -> None:
    count, newest_time, times, labels, log_score, codes = events
    counts, totals, table, ready, far_run, learned, refreshed = histograms
    pending_end, pending_length, pending_top, pending_fault = waiting
    tops, decayed_events, levels = excursions
    capacity = labels.shape[1]
    one, two = np.empty(ROW_BINS + 1), np.empty(ROW_BINS + 1)
    at = np.empty(CHANNELS, np.int64)
    for a in range(len(rows)):
        s, horizon_events = rows[a], wait[a]
        newest = count[s] - 1
        event_number = max(learned[s], count[s] - capacity)
        begun = event_number
        while event_number <= newest:
            slot = event_number % capacity
            label = labels[s, slot]
            matured = event_number <= newest - horizon_events or event_number < warmup_events or label != UNLABELLED
            if not matured and (horizon_ns < 0 or newest_time[s] - times[s, slot] < horizon_ns):
                break
            if label <= NORMAL and codes[s, slot, 0] != UNSEEN:
                at[0] = _bin(log_score[s, slot] / SCORE_STEPS + LOWEST_SCORE)
                at[1], at[2] = codes[s, slot, 0], codes[s, slot, 1]
                for c in range(CHANNELS):
                    middle = (np.float64(table[s, c, at[c]]) + table[s, c, at[c] + 1]) / (2 * FIXED)
                    far = ready[s, c] and middle > FAR
                    far_run[s, c] = far_run[s, c] + 1 if far else max(0, far_run[s, c] - RUN_RECOVERY)
                    for memory in range(2):
                        if not far or far_run[s, c] <= RUN_EVENTS:
                            counts[s, memory, c, at[c]] += 1
                        totals[s, memory, c] += 1
            event_number += 1
        learned[s] = event_number
        passed, window = count[s] - refreshed[s], max(YOUNG, count[s] / AGE_SHARE)
        if passed * REFRESH_SHARE < min(MEMORY, window):
            continue
        refreshed[s] = count[s]
        keep = np.exp(-passed / min(MEMORY, window))
        keep_short = np.exp(-passed / min(MEMORY / SHORTER, window))
        for c in range(CHANNELS):
            for memory in range(2):
                factor = np.float32(keep if memory == 0 else keep_short)
                totals[s, memory, c] *= factor
                for i in range(ROW_BINS):
                    counts[s, memory, c, i] *= factor
            if totals[s, 0, c] >= FIRST_EVENTS:
                surprise_table(counts[s, 0, c], np.float64(totals[s, 0, c]), one)
                surprise_table(counts[s, 1, c], np.float64(totals[s, 1, c]), two)
                for i in range(ROW_BINS + 1):
                    table[s, c, i] = np.uint16(np.rint(min(one[i], two[i]) * FIXED))
                ready[s, c] = True
        decayed_events[s] = np.float32(decayed_events[s] * keep + passed) if ready[s, 0] else np.float32(0)
        waiting_events = min(np.float64(horizon_events), decayed_events[s] / 2)  # whose excursions are not decided yet
        for j in range(STATISTICS):
            for i in range(TOP_BINS):
                tops[s, j, i] *= np.float32(keep)
            for p in range(PENDING):
                if pending_top[s, j, p] < 0:
                    continue
                end = pending_end[s, j, p]
                decided = end <= newest - horizon_events or end < warmup_events
                if not decided and (horizon_ns < 0 or newest_time[s] - times[s, end % capacity] < horizon_ns):
                    continue
                if not pending_fault[s, j, p]:
                    tops[s, j, top_bin(pending_top[s, j, p])] += 1
                pending_top[s, j, p] = -1
            for k in range(rates.shape[1]):
                behind = max(np.float64(decayed_events[s]) - waiting_events, 32.0)
                levels[s, k, j] = level(
                    tops[s, j], behind, rates[a, k] / STATISTICS, SPIKE_SHAPE if j < CHANNELS else SUSTAINED_SHAPE
                )
