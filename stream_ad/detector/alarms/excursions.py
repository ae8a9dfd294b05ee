"""Excursions of the six statistics of a sensor, event by event, and the incidents that they open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.alarms.channels import CHANNELS, row_bin
from stream_ad.detector.alarms.levels import CAP, MOST, surprise, top_bin
from stream_ad.detector.feedback.label_head import MOST_GATE
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

STATISTICS = 6  # of each channel u, for spikes, and G, for what lasts
SPIKE, SUSTAINED, STUCK = 1, 2, 3  # kinds of alarms; 0 for none
OVER, ACCEPTED, JUDGED = 0, 1, 2  # why an incident ends
USUAL, QUIET = 3.0, 16  # surprise below is usual; so many usual events in a row end an excursion
SPIKE_LOSS, SUSTAINED_LOSS = 3.0, 5.0  # nats an event that evidence loses, for excursions of u and of G
FAR = 7.0  # surprise of an event that is far from usual: fewer than one in a thousand
LATE = 600  # events before residuals and errors alarm
EARLY = 64  # events before anything alarms where other sensors give the levels
PENDING = 16  # excursions of a statistic that wait for a label
MOST_LENGTH = 65_535  # events of an excursion that are told apart: no label reaches back so far
UNSEEN = 255  # code of an event that no histogram counts
NEVER = -1  # first event of an excursion that has not begun
BELOW = float(np.nextafter(np.float64(1), np.float64(0)))  # evidence over level where no incident is open, at most


@kernel
def observe(
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    new: Arrays,
    first_alarm: NDArray[np.int64],
    sensors: tuple[Arrays, Arrays, Arrays, Arrays],
    out: Arrays,
) -> None:
    """Weigh the evidence of events; see ``Evidence.observe``.

    Arrays are taken out of their tuples once a call: numba counts references to each, which takes longer than an event.

    Args:
        rows: (N,) sensors, in the order of arrival.
        event_numbers: (N,) number of each event among those of its sensor.
        new: Of the events: (3, N) channels, (N,) stuck, (N,) planned.
        first_alarm: (2,) events of a sensor before anything alarms: by its own levels, by those of other sensors.
        sensors: Tables, running excursions, waiting excursions and incidents of the sensors.
        out: Filled, zero before: (N, K) evidence over level, (N,) kinds, (N,) endings.
    """
    tables, running, waiting, incidents = sensors
    ratios, kinds, _ = out
    reached, rests = np.zeros(ratios.shape, np.bool_), np.ones(len(rows), np.bool_)
    _advance(rows, event_numbers, new, first_alarm, tables, running, waiting, (ratios, kinds, reached, rests))
    _decide(rows, event_numbers, new, first_alarm, tables, incidents, (reached, rests), out)


@kernel
def _advance(  # noqa: PLR0915 -- to hand arrays on would take longer than what is done with them
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    new: Arrays,
    first_alarm: NDArray[np.int64],
    tables: Arrays,
    running: Arrays,
    waiting: Arrays,
    out: Arrays,
) -> None:
    """Move the statistics of the sensors on, event by event.

    Args:
        rows: (N,) sensors.
        event_numbers: (N,) numbers of the events.
        new: See ``observe``.
        first_alarm: (2,) events of a sensor before anything alarms: by its own levels, by those of other sensors.
        tables: Tables of the sensors.
        running: Running excursions, (S, 6) each, and counts.
        waiting: Waiting excursions; (S, K, 6) which statistics have reached their level.
        out: Filled: (N, K) evidence over level, (N,) kinds, (N, K) whether a statistic has reached its level, (N,)
            whether all are at rest.
    """
    table, ready, levels, began, early, codes, usual_below, open_share, _ = tables
    evidence, top, start, fault, usual_run, beyond, resting = running
    pending_end, pending_length, pending_top, pending_fault, tops, alarming = waiting
    channels, stuck, planned = new
    best, kinds, reached, rests = out
    u = np.zeros(CHANNELS)
    for n in range(len(rows)):
        s, event_number, is_planned = rows[n], event_numbers[n], planned[n] != 0
        at = event_number % codes.shape[1]
        codes[s, at, 0] = UNSEEN if is_planned else row_bin(channels[1, n])
        codes[s, at, 1] = UNSEEN if is_planned else row_bin(channels[2, n])
        usual = resting[s] and stuck[n] == 0
        for c in range(CHANNELS):
            usual &= channels[c, n] <= usual_below[s, c]
        if usual or (is_planned and resting[s]):  # nearly all events: there is nothing to move on, and no evidence
            continue
        age = event_number - began[s]
        least = first_alarm[np.int64(early[s])]
        alone = open_share[s] < MOST_GATE
        for c in range(CHANNELS):  # a planned window ends excursions
            u[c] = surprise(table, s, c, channels[c, n]) if ready[s, c] and not is_planned else 0.0
            usual_run[s, c] = QUIET if is_planned else (usual_run[s, c] + 1 if u[c] < USUAL else 0)
        beyond[s] += u[0] > FAR
        for j in range(STATISTICS):
            c = j % CHANNELS
            if u[c] < USUAL and start[s, j] < 0:
                continue
            held = max(0.0, evidence[s, j] + min(u[c], CAP) - (SPIKE_LOSS if j < CHANNELS else SUSTAINED_LOSS))
            held = 0.0 if usual_run[s, c] >= QUIET else min(held, MOST)
            evidence[s, j] = held
            if held > 0:
                if start[s, j] < 0:
                    start[s, j], top[s, j] = event_number, 0.0
                x = u[c] if j < CHANNELS else held
                top[s, j] = max(top[s, j], np.float32(x))
                rests[n] = False
                decides = age >= (least if c == 0 or early[s] else max(first_alarm[0], LATE)) and not alone
                for k in range(best.shape[1]):
                    ratio = x / levels[s, k, j] if decides else 0.0
                    alarming[s, k, j] |= ratio >= 1
                    reached[n, k] |= alarming[s, k, j]
                    if ratio > best[n, k]:
                        best[n, k] = ratio
                        if k == 0:
                            kinds[n] = SPIKE if j < CHANNELS or start[s, j] == event_number else SUSTAINED
            elif start[s, j] >= 0:  # it waits for a label; where too many wait, the smallest is counted at once
                slot, maximum = 0, top[s, j]
                for p in range(PENDING):
                    if pending_top[s, j, p] < pending_top[s, j, slot]:
                        slot = p
                smallest = pending_top[s, j, slot]
                if maximum <= smallest:  # this one itself
                    tops[s, j, top_bin(maximum)] += not fault[s, j]
                else:
                    if smallest >= 0:
                        tops[s, j, top_bin(smallest)] += not pending_fault[s, j, slot]
                    pending_end[s, j, slot] = event_number
                    pending_length[s, j, slot] = min(event_number - start[s, j], MOST_LENGTH)
                    pending_top[s, j, slot], pending_fault[s, j, slot] = maximum, fault[s, j]
                start[s, j], fault[s, j] = NEVER, False
                for k in range(best.shape[1]):
                    alarming[s, k, j] = False
        resting[s] = rests[n] and not alone


@kernel
def _decide(
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    new: Arrays,
    first_alarm: NDArray[np.int64],
    tables: Arrays,
    incidents: Arrays,
    excursions: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    out: Arrays,
) -> None:
    """Decide at each budget whether the sensors alarm, and keep which event opened an incident and which is its peak.

    Args:
        rows: (N,) sensors.
        event_numbers: (N,) numbers of the events.
        new: See ``observe``.
        first_alarm: (2,) events of a sensor before anything alarms: by its own levels, by those of other sensors.
        tables: Tables of the sensors.
        incidents: Incidents of the sensors, (S, K) each.
        excursions: (N, K) whether a statistic has reached its level; (N,) whether all are at rest.
        out: (N, K) evidence over level, (N,) kinds, (N,) endings.
    """
    table, ready, _, began, early, _, _, open_share, alarm_level = tables
    interrupted, muted, first, last, peak, peak_event, ending = incidents
    channels, stuck, planned = new
    reached, rests = excursions
    ratios, kinds, endings = out
    for n in range(len(rows)):
        s, event_number = rows[n], event_numbers[n]
        alone = open_share[s] < MOST_GATE
        if rests[n] and not alone and stuck[n] == 0 and not interrupted[s]:
            continue
        interrupted[s], is_planned = False, planned[n] != 0
        is_stuck = stuck[n] >= 1 and not is_planned
        may_alarm = event_number - began[s] >= first_alarm[np.int64(early[s])]
        for k in range(ratios.shape[1]):
            if ending[s, k] != 0:
                if k == 0:
                    endings[n] = ending[s, k]
                ending[s, k] = 0
            muted[s, k] &= not rests[n] or is_stuck
            interrupted[s] |= muted[s, k]
            ratio, is_open = ratios[n, k], reached[n, k]
            if may_alarm and not is_planned and (alone or stuck[n] > 0):
                if alone:
                    level = alarm_level[s, k]
                    nats = surprise(table, s, 0, channels[0, n]) if ready[s, 0] else 0.0
                    ratio = nats / max(surprise(table, s, 0, level), 1.0)
                    is_open = channels[0, n] >= level
                    is_open &= nats >= 1 or not ready[s, 0]  # not by rounding alone, where rows are constant
                    if k == 0:
                        kinds[n] = SPIKE
                if stuck[n] > ratio:
                    ratio = stuck[n]
                    if k == 0 and is_stuck:
                        kinds[n] = STUCK
                is_open |= is_stuck
            is_open &= not muted[s, k]
            ratios[n, k] = max(ratio, 1.0) if is_open else min(ratio, BELOW)
            if is_open:
                if event_number - last[s, k] > QUIET or first[s, k] < 0:
                    first[s, k], peak[s, k] = event_number, 0
                last[s, k] = event_number
                if ratios[n, k] > peak[s, k]:
                    peak[s, k], peak_event[s, k] = np.float32(ratios[n, k]), event_number
        if ratios[n, 0] < 1:
            kinds[n] = 0
