"""Calibration at learn points: what counts as normal, and the levels that follow from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.alarms.channels import CHANNELS, row_bin
from stream_ad.detector.alarms.excursions import FAR, LATE, PENDING, STATISTICS, UNSEEN
from stream_ad.detector.alarms.levels import (
    FIXED,
    ROW_BINS,
    SPIKE_SHAPE,
    SUSTAINED_SHAPE,
    TOP_BINS,
    level,
    surprise_table,
    top_bin,
)
from stream_ad.detector.alarms.young_pool import POOL_AGE, WORTH, WORTH_TOPS
from stream_ad.detector.feedback.event_buffer import LOWEST_SCORE, NORMAL, SCORE_STEPS, UNLABELLED
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUN_EVENTS, RUN_RECOVERY = 16, 4  # far events of one run that count in the histogram; what a usual one takes back
MEMORY, SHORTER, AGE_SHARE, YOUNG = 131_072.0, 8.0, 2.0, 256.0  # a histogram forgets in half a sensor's age
FIRST_EVENTS = 32  # events behind a histogram before it says anything
REFRESH_SHARE = 64  # levels are set anew when a sixty-fourth of what they rest on is new
DELAY_LABELS = 64.0  # labels that their mean delay looks back
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
            if labelled[a, b]:
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
    wait: tuple[NDArray[np.int64], int, int],
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
    count, refreshed = events[0], histograms[6]
    counts = np.empty((2, ROW_BINS), np.float64)
    tables = np.empty((2, ROW_BINS + 1))
    tops = np.empty(TOP_BINS)
    for a in range(len(rows)):
        s = rows[a]
        _take_in(s, wait[0][a], wait, events, histograms, pool)
        passed, window = count[s] - refreshed[s], max(YOUNG, count[s] / AGE_SHARE)
        if passed * REFRESH_SHARE < min(MEMORY, window):
            continue
        refreshed[s] = count[s]
        keep, keep_short = np.exp(-passed / min(MEMORY, window)), np.exp(-passed / min(MEMORY / SHORTER, window))
        share = max(0.0, 1 - count[s] / POOL_AGE)  # of what young sensors have in common
        _set_tables(s, (keep, keep_short, share), histograms, pool, (counts, tables))
        decay = keep, passed, share
        _set_levels(s, rates[a], (wait[0][a], wait[1], wait[2]), decay, events, histograms, excursions, (*pool, tops))


@kernel
def _take_in(s: int, horizon_events: int, wait: Arrays, events: Arrays, histograms: Arrays, pool: Arrays) -> None:
    """Count the events of a sensor that are known or presumed to be normal by now."""
    _, warmup_events, horizon_ns = wait
    count, newest_time, times, labels, log_score, codes = events
    counts, totals, table, ready, far_run, learned, _, _ = histograms
    new_counts, _, new_events = pool[0], pool[1], pool[2]
    capacity, newest = labels.shape[1], count[s] - 1
    event_number = max(learned[s], count[s] - capacity)
    while event_number <= newest:
        slot = event_number % capacity
        label = labels[s, slot]
        matured = event_number <= newest - horizon_events or event_number < warmup_events or label != UNLABELLED
        if not matured and (horizon_ns < 0 or newest_time[s] - times[s, slot] < horizon_ns):
            break
        if label <= NORMAL and codes[s, slot, 0] != UNSEEN:
            for c in range(CHANNELS):
                at = codes[s, slot, c - 1] if c > 0 else row_bin(log_score[s, slot] / SCORE_STEPS + LOWEST_SCORE)
                middle = (np.float64(table[s, c, at]) + table[s, c, at + 1]) / (2 * FIXED)
                far = ready[s, c] and middle > FAR
                far_run[s, c] = far_run[s, c] + 1 if far else max(0, far_run[s, c] - RUN_RECOVERY)
                for memory in range(2):
                    counts[s, memory, c, at] += not far or far_run[s, c] <= RUN_EVENTS
                    totals[s, memory, c] += 1
                new_counts[c, at] += event_number < LATE
            new_events[0] += event_number < LATE
        event_number += 1
    learned[s] = event_number


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
    counts, totals, table, ready = histograms[0], histograms[1], histograms[2], histograms[3]
    common, pooled = pool[3], pool[5]
    both, tables = scratch
    worth = shares[2] * min(1.0, WORTH / max(pooled, 1.0))
    for c in range(CHANNELS):
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


@kernel
def _set_levels(
    s: int,
    rates: NDArray[np.float64],
    wait: Arrays,
    decay: tuple[float, int, float],
    events: Arrays,
    histograms: Arrays,
    excursions: Arrays,
    pool: Arrays,
) -> None:
    """Count the excursions of a sensor that no longer wait, and derive its levels at the rates (K,)."""
    horizon_events, warmup_events, horizon_ns = wait
    keep, passed, share = decay
    count, newest_time, times = events[0], events[1], events[2]
    ready, early = histograms[3], histograms[7]
    pending_end, pending_top, pending_fault, tops, counted_events, levels = excursions
    new_tops, common_tops, pooled, both = pool[1], pool[4], pool[5], pool[6]
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
