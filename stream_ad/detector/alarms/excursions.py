"""Excursions of the six statistics of a sensor, event by event, and the incidents that they open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.alarms.channels import CHANNELS, row_bin
from stream_ad.detector.alarms.levels import CAP, MOST, surprise, top_bin
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
UNSEEN = 255  # code of an event that no histogram counts
NEVER = -1  # first event of an excursion that has not begun
BELOW = float(np.nextafter(np.float64(1), np.float64(0)))  # evidence over level where no incident is open, at most


@kernel
def observe(
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    new: Arrays,
    warmup_events: int,
    sensors: tuple[Arrays, Arrays, Arrays, Arrays],
    out: Arrays,
) -> None:
    """Weigh the evidence of events; see ``Evidence.observe``.

    Args:
        rows: (N,) sensors, in the order of arrival.
        event_numbers: (N,) number of each event among those of its sensor.
        new: Of the events: (3, N) channels, (N,) whether decided alone, (N, K) level then, (N,) stuck, (N,) planned.
        warmup_events: Events of a sensor before anything alarms.
        sensors: Tables, running excursions, waiting excursions and incidents of the sensors.
        out: Filled: (N, K) evidence over level, (N,) kinds, (N,) endings.
    """
    known, running, waiting, incidents = sensors
    began, early, codes = known[3], known[4], known[5]
    channels, planned = new[0], new[4]
    u, best = np.zeros(CHANNELS), np.zeros(out[0].shape[1])
    for n in range(len(rows)):
        s, event_number = rows[n], event_numbers[n]
        at = event_number % codes.shape[1]
        codes[s, at, 0] = UNSEEN if planned[n] else row_bin(channels[1, n])
        codes[s, at, 1] = UNSEEN if planned[n] else row_bin(channels[2, n])
        age = event_number - began[s]
        least = min(EARLY, warmup_events) if early[s] else warmup_events
        least_of_others = least if early[s] else max(warmup_events, LATE)
        _surprises(s, n, new, known, running, u)
        best[:] = 0
        out[1][n] = 0
        decided = age >= least, age >= least_of_others, new[1][n]
        resting = _advance(s, event_number, u, decided, known[2], running, (waiting, incidents[0]), (best, out[1], n))
        _decide(s, n, event_number, (resting, age >= least), new, known, incidents, (best, *out))


@kernel
def _surprises(s: int, n: int, new: Arrays, known: Arrays, running: Arrays, u: NDArray[np.float64]) -> None:
    """Fill in the surprise of event ``n`` by channel (3,); 0 in a planned window, which ends excursions."""
    channels, planned = new[0], new[4]
    table, ready = known[0], known[1]
    usual_run, beyond = running[4], running[5]
    for c in range(CHANNELS):
        u[c] = surprise(table, s, c, channels[c, n]) if ready[s, c] and not planned[n] else 0.0
        if planned[n]:
            usual_run[s, c] = QUIET
        else:
            usual_run[s, c] = usual_run[s, c] + 1 if u[c] < USUAL else 0
    beyond[s] += u[0] > FAR


@kernel
def _advance(
    s: int,
    event_number: int,
    u: NDArray[np.float64],
    decided: tuple[bool, bool, bool],
    levels: NDArray[np.float32],
    running: Arrays,
    ends: tuple[Arrays, NDArray[np.bool_]],
    out: Arrays,
) -> bool:
    """Move the statistics of a sensor on by one event, and return whether all are at rest.

    Args:
        s: The sensor.
        event_number: Number of the event.
        u: (3,) its surprise by channel.
        decided: Whether the log score may alarm; whether the other channels may; whether the event is decided alone.
        levels: (S, K, 6) levels.
        running: Running excursions, (S, 6) each, and counts.
        ends: Waiting excursions; (S, K, 6) which statistics have reached their level.
        out: (K,) evidence over level, raised; (N,) kinds; the index of the event.
    """
    evidence, top, start, fault, usual_run, _ = running
    waiting, alarming = ends
    best, kinds, n = out
    resting = True
    for j in range(STATISTICS):
        c = j % CHANNELS
        held = max(0.0, evidence[s, j] + min(u[c], CAP) - (SPIKE_LOSS if j < CHANNELS else SUSTAINED_LOSS))
        if usual_run[s, c] >= QUIET:
            held = 0.0
        evidence[s, j] = min(held, MOST)
        if held > 0:
            if start[s, j] < 0:
                start[s, j], top[s, j] = event_number, 0.0
            x = u[c] if j < CHANNELS else held
            top[s, j] = max(top[s, j], np.float32(x))
            resting = False
            for k in range(len(best) if decided[min(c, 1)] and not decided[2] else 0):
                ratio = x / levels[s, k, j]
                alarming[s, k, j] |= ratio >= 1
                if ratio > best[k]:
                    best[k] = ratio
                    if k == 0:
                        kinds[n] = SPIKE if j < CHANNELS else SUSTAINED
        elif start[s, j] >= 0:
            _end_excursion(s, j, event_number, (start, top, fault), waiting)
            for k in range(len(best)):
                alarming[s, k, j] = False
    return resting


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
def _decide(
    s: int,
    n: int,
    event_number: int,
    state: tuple[bool, bool],
    new: Arrays,
    known: Arrays,
    incidents: Arrays,
    out: Arrays,
) -> None:
    """Decide at each budget whether the sensor alarms at event ``n``, and keep what opened and what is the peak.

    Args:
        s: The sensor.
        n: Index of the event.
        event_number: Its number among those of the sensor.
        state: Whether all statistics are at rest; whether the sensor is old enough to alarm.
        new: See ``observe``.
        known: Tables of the sensors.
        incidents: Incidents of the sensors, (S, K) each.
        out: (K,) evidence over level; what ``observe`` fills.
    """
    resting, may_alarm = state
    channels, alone, alarm_level, stuck, planned = new
    table, ready = known[0], known[1]
    alarming, muted, first, last, peak, peak_event, ending = incidents
    best, ratios, kinds, endings = out
    is_stuck = stuck[n] >= 1 and not planned[n]
    for k in range(len(best)):
        if ending[s, k] != 0:
            if k == 0:
                endings[n] = ending[s, k]
            ending[s, k] = 0
        muted[s, k] &= not resting or is_stuck
        ratio, is_open = best[k], False
        for j in range(STATISTICS):
            is_open |= alarming[s, k, j]
            alarming[s, k, j] &= not muted[s, k]
        if may_alarm and not planned[n]:
            if alone[n]:
                level = alarm_level[n, k]
                nats = surprise(table, s, 0, channels[0, n]) if ready[s, 0] else 0.0
                ratio, is_open = nats / max(surprise(table, s, 0, level), 1.0), channels[0, n] >= level
                if k == 0:
                    kinds[n] = SPIKE
            if stuck[n] > ratio:
                ratio = stuck[n]
                if k == 0:
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
