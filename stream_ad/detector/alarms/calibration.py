"""Calibration at learn points: what counts as normal, and the levels that follow from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.alarms.channels import CHANNELS, row_bin
from stream_ad.detector.alarms.excursions import EARLY, FAR, LATE, PENDING, STATISTICS, UNSEEN, USUAL
from stream_ad.detector.alarms.levels import (
    FIXED,
    ROW_BINS,
    SPIKE_SHAPE,
    SUSTAINED_SHAPE,
    TOP_BINS,
    far_bin,
    level,
    surprise_table,
    top_bin,
    usual_bound,
)
from stream_ad.detector.alarms.young_pool import POOL_AGE, WORTH, WORTH_TOPS
from stream_ad.detector.feedback.event_buffer import LOWEST_SCORE, NORMAL, SCORE_STEPS, UNLABELLED
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUN_EVENTS, RUN_RECOVERY = 16, 4  # far events of one run that count in the histogram; what a usual one takes back
MEMORY, SHORTER, AGE_SHARE, YOUNG = 131_072.0, 8.0, 2.0, 256.0  # a histogram forgets in half a sensor's age
FIRST_EVENTS = 32  # events behind a histogram before it says anything
REFRESH_SHARE, LEAST_REFRESH = 8, 64  # levels are set anew when an eighth of what they rest on is new
DELAY_LABELS = 64.0  # labels that their mean delay looks back
UNLABELLED_WAIT = 128  # events that a sensor without labels waits, so that a fault does not count as usual at once
LONGER, BATCHES = 1.25, 32  # of the mean delay of its labels, and so many events more, that a sensor with labels waits
AROUND = 2  # events around an excursion whose labels speak of it


@kernel
def note_labels(
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    labelled: NDArray[np.bool_],
    anomalous: NDArray[np.bool_],
    excursions: Arrays,
    delays: Arrays,
) -> None:
    """Note how late labels come, and mark the excursions around labelled anomalies; see ``Evidence.note_labels``."""
    label_delay, labels, count = delays
    for a in range(len(rows)):
        s = rows[a]
        for b in range(event_numbers.shape[1]):
            if labelled[a, b] or anomalous[a, b]:
                labels[s] += 1
                rate = 1 / min(np.float64(labels[s]), DELAY_LABELS)
                label_delay[s] += np.float32(rate * (count[s] - event_numbers[a, b] - label_delay[s]))
            if anomalous[a, b]:
                _mark(s, event_numbers[a, b], excursions)


@kernel
def _mark(s: int, event_number: int, excursions: Arrays) -> None:
    """Mark the excursions of a sensor that an anomaly speaks of."""
    pending_end, pending_length, pending_top, pending_fault, start, fault = excursions
    for j in range(STATISTICS):
        fault[s, j] |= start[s, j] >= 0 and event_number >= start[s, j] - AROUND
        for p in range(PENDING):
            end = pending_end[s, j, p]
            if pending_top[s, j, p] >= 0 and event_number < end + AROUND:
                pending_fault[s, j, p] |= event_number >= end - pending_length[s, j, p] - AROUND


@kernel
def calibrate(
    rows: NDArray[np.int64],
    events: Arrays,
    wait: Arrays,
    histograms: Arrays,
    excursions: Arrays,
    pool: Arrays,
    rates: NDArray[np.float64],
) -> None:
    """Take in the events that are normal by now, and set the levels anew when due; see ``Evidence.learn``.

    1. Count the events in order, up to the first that still waits for a label.
    2. Once enough is new, let the histograms forget, and derive the tables of surprise.
    3. Count the excursions that no longer wait, and derive the levels.
    """
    label_delay, labels, horizon_events, warmup_events, horizon_ns = wait
    count, refreshed, resting = events[0], histograms[6], histograms[9]
    counts = np.empty((2, ROW_BINS), np.float64)
    tables = np.empty((2, ROW_BINS + 1))
    tops, slots = np.empty(TOP_BINS), np.empty(events[3].shape[1], np.int64)
    for a in range(len(rows)):
        s = rows[a]
        resting[s] = False  # parameters change at learn points
        waits = LONGER * label_delay[s] + BATCHES if labels[s] > 0 else UNLABELLED_WAIT
        limits = np.int64(min(waits, horizon_events)), warmup_events, horizon_ns
        _take_in(s, limits, events, histograms, pool, slots)
        passed, window = count[s] - refreshed[s], max(YOUNG, count[s] / AGE_SHARE)
        if passed < max(min(MEMORY, window) / REFRESH_SHARE, LEAST_REFRESH):
            continue
        refreshed[s] = count[s]
        keep, keep_short = np.exp(-passed / min(MEMORY, window)), np.exp(-passed / min(MEMORY / SHORTER, window))
        share = max(0.0, 1 - count[s] / POOL_AGE)  # of what young sensors have in common
        _set_tables(s, (keep, keep_short, share), histograms, pool, (counts, tables))
        decay = keep, passed, share
        _set_levels(s, rates[a], limits, decay, events, histograms, excursions, (*pool, tops))


@kernel
def _take_in(
    s: int,
    limits: Arrays,
    events: Arrays,
    histograms: Arrays,
    pool: Arrays,
    slots: NDArray[np.int64],
) -> None:
    """Count the events of a sensor that are known or presumed to be normal by now.

    Args:
        s: The sensor.
        limits: Events that an event waits for a label; events of the warm-up, which do not wait; event time that an
            event waits, ns, -1 for no limit.
        events: Of the sensors, see ``Evidence.learn``.
        histograms: The same.
        pool: The same.
        slots: (C,) scratch.
    """
    horizon_events, warmup_events, horizon_ns = limits
    count, newest_time, times, labels, log_score, codes = events
    counts, totals, far_from, far_run, learned = histograms[0], histograms[1], histograms[10], *histograms[4:6]
    new_counts, new_events = pool[0], pool[2]
    capacity, newest, number, young = len(slots), count[s] - 1, 0, 0
    event_number = max(learned[s], count[s] - capacity)
    slot = event_number % capacity
    first = min(EARLY, warmup_events // 2)  # of earlier events the model knew too little
    while event_number <= newest:
        label = labels[s, slot]
        matured = event_number <= newest - horizon_events or event_number < warmup_events or label != UNLABELLED
        if not matured and (horizon_ns < 0 or newest_time[s] - times[s, slot] < horizon_ns):
            break
        if label <= NORMAL and codes[s, slot, 0] != UNSEEN and event_number >= first:
            slots[number] = slot
            number += 1
            young += event_number < LATE
        event_number += 1
        slot = slot + 1 if slot + 1 < capacity else 0
    learned[s] = event_number
    new_events[0] += young
    for c in range(CHANNELS):
        run, far_at, counted = far_run[s, c], far_from[s, c], 0
        for i in range(number):
            slot = slots[i]
            at = codes[s, slot, c - 1] if c > 0 else row_bin(log_score[s, slot] * (1 / SCORE_STEPS) + LOWEST_SCORE)
            if c > 0 and at == 0 and i < young:  # nothing is expected yet, and no reading can be far from it
                continue
            run = run + 1 if at >= far_at else max(0, run - RUN_RECOVERY)
            if run <= RUN_EVENTS or at < far_at:
                counts[s, 0, c, at] += 1
                counts[s, 1, c, at] += 1
            new_counts[c, at] += i < young
            counted += 1
        far_run[s, c] = run
        totals[s, 0, c] += counted
        totals[s, 1, c] += counted


@kernel
def _set_tables(s: int, shares: tuple[float, float, float], histograms: Arrays, pool: Arrays, scratch: Arrays) -> None:
    """Let the histograms of a sensor forget, and derive its tables of surprise.

    Args:
        s: The sensor.
        shares: What the long and the short histogram keep; what the pool of young sensors counts for.
        histograms: See ``Evidence``.
        pool: Counts of young sensors, to add to; those published.
        scratch: (2, B) and (2, B + 1).
    """
    counts, totals, table, ready = histograms[:4]
    usual_below, far_from = histograms[8], histograms[10]
    common = pool[3]
    both, tables = scratch
    for c in range(CHANNELS):
        pooled = 0.0
        for i in range(ROW_BINS):
            pooled += common[c, i]
        worth = shares[2] * min(1.0, WORTH / max(pooled, 1.0))
        for memory in range(2):
            factor = np.float32(shares[memory])
            totals[s, memory, c] *= factor
            for i in range(ROW_BINS):
                counts[s, memory, c, i] *= factor
                both[memory, i] = counts[s, memory, c, i] + worth * common[c, i]
            surprise_table(both[memory], totals[s, memory, c] + worth * pooled, tables[memory])
        if totals[s, 0, c] >= FIRST_EVENTS or worth * pooled >= FIRST_EVENTS:
            for i in range(ROW_BINS + 1):
                table[s, c, i] = np.uint16(np.rint(min(tables[0, i], tables[1, i]) * FIXED))
            ready[s, c] = True
            usual_below[s, c] = usual_bound(table, s, c, USUAL)
            far_from[s, c] = far_bin(table, s, c, FAR)


@kernel
def _set_levels(
    s: int,
    rates: NDArray[np.float64],
    limits: Arrays,
    decay: tuple[float, int, float],
    events: Arrays,
    histograms: Arrays,
    excursions: Arrays,
    pool: Arrays,
) -> None:
    """Count the excursions of a sensor that no longer wait, and derive its levels at the rates (K,)."""
    horizon_events, warmup_events, horizon_ns = limits
    keep, passed, share = decay
    count, newest_time, times = events[0], events[1], events[2]
    ready, early = histograms[3], histograms[7]
    pending_end, pending_top, pending_fault, tops, counted_events, levels = excursions
    new_tops, common_tops, pooled, both = pool[1], pool[4], pool[5][0], pool[6]
    worth = share * min(1.0, WORTH_TOPS / max(pooled, 1.0))
    early[s] = worth * pooled >= FIRST_EVENTS
    counted_events[s] = np.float32(counted_events[s] * keep + passed) if ready[s, 0] else np.float32(0)
    waiting = min(np.float64(horizon_events), counted_events[s] / 2)  # events whose excursions are not decided yet
    behind = max(counted_events[s] - waiting, 32.0) + worth * pooled
    for j in range(STATISTICS):
        for i in range(TOP_BINS):
            tops[s, j, i] *= np.float32(keep)
        for p in range(PENDING):
            end = pending_end[s, j, p]
            if pending_top[s, j, p] < 0:
                continue
            decided = end < count[s] - horizon_events or end < warmup_events
            if not decided and (horizon_ns < 0 or newest_time[s] - times[s, end % times.shape[1]] < horizon_ns):
                continue
            if not pending_fault[s, j, p]:
                tops[s, j, top_bin(pending_top[s, j, p])] += 1
                new_tops[j, top_bin(pending_top[s, j, p])] += end < LATE
            pending_top[s, j, p] = -1
        for i in range(TOP_BINS):
            both[i] = tops[s, j, i] + worth * common_tops[j, i]
        for k in range(len(rates)):
            shape = SPIKE_SHAPE if j < CHANNELS else SUSTAINED_SHAPE
            levels[s, k, j] = level(both, behind, rates[k] / STATISTICS, shape)
