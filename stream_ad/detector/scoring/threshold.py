"""The error level that gives the wanted false-alarm rate, and the level below which unlabelled events are learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.feedback.event_buffer import LOWEST_SCORE, NO_SCORE, SCORE_STEPS, pack_score, unpack_scores
from stream_ad.detector.feedback.label_head import MOST_GATE
from stream_ad.detector.row_store import ColumnSpec, SensorTable
from stream_ad.detector.scoring.tail_quantile import TAIL_SHARES, tail_quantile, tail_start
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROW_RATE = 1e-3
"""Share of normal rows above the row level, which learning and class importance use."""
LABELLED_ENOUGH = 100
GATE_LABELLED = 300
GATE_QUANTILE = 0.9
UNLABELLED_GATE_RATE = 0.02
UNLABELLED_BAND = float(np.log(4.0))  # unlabelled scores of tables up to 4 x threshold still calibrate it
CHUNK = 64  # levels set anew at once: all scores that they rest on are sorted, and stay in the cache meanwhile
REFRESH_SHARE = 8  # levels are set anew when an eighth of what they rest on has been replaced
FIRST_EVENTS = 32  # calibration scores, below which the static level stands alone
STATIC_PEAKS = 64.0  # independent peaks above the 90 % point so far, from which on the static level says no more
RECENT = 1024  # labelled normals whose own level counts where it is higher: after a change, and as the head learns
STATIC_TARGET = 1e-3
STATIC_SIZE = 20.0  # times its usual size: an error that one event in a thousand reaches, before anything is known
MIDDLE = 3.0  # log score that is published as .5


def static_level(autocorrelation_gate: NDArray[np.float64], rate: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """The level for sensors of which little is known: Q, and on a stream with memory M too, 20 times what is usual.

    The scores of the first events lie close together, the more so where each event resembles the one before:
    a quantile of them promises nothing.

    Args:
        autocorrelation_gate: (A,) 0 for tables, 1 where M counts in full.
        rate: Tolerated false-alarm rate; the level is lower where more are tolerated.
    """
    return (1 + autocorrelation_gate) * np.log(STATIC_SIZE) * np.log(rate) / np.log(STATIC_TARGET)


def published(log_score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return scores as users see them: u / (1 + u) with u = exp(log score - 3), above 0 and below 1.

    The scale is the same for ever and for all sensors. No level moves it: a level is a tail quantile of few scores,
    and its own movement would disturb the order of all others.

    Args:
        log_score: (N,).
    """
    u = np.exp(log_score - MIDDLE)
    return u / (1 + u)


class Threshold(SensorTable):
    """Calibration per sensor, from scores stored when they were made.

    Labelled normals alone once there are enough of them; before, also unlabelled events that were
    not far above the threshold (those just above belong to the tail that is to be measured: to
    leave them out would lower the threshold for ever). Levels are set anew when much of what they rest on
    is new, and at once when people say of an alarm that it was none.
    """

    scores: NDArray[np.uint16]  # (S, W) ring of packed log scores, of unlabelled events until there are enough labelled
    first: NDArray[np.uint16]  # (S, 100) of labelled normals until then
    labelled_count: NDArray[np.int64]  # (S,)
    unlabelled_count: NDArray[np.int64]  # (S,)
    fresh: NDArray[np.int64]  # (S,) calibration scores since the levels were set
    log_level: NDArray[np.float64]  # (S,) the threshold in force, +inf before there is one
    gate_level: NDArray[np.float64]  # (S,) unlabelled events at or below are learned
    own: NDArray[np.float64]  # (S,) level by the scores as they were made
    expected: NDArray[np.float64]  # (S,) level by the scores that normals would have now; -inf where unknown
    alarm_level: NDArray[np.float64]  # (S, K) on tables, the log score that a normal event exceeds at each budget
    alarm_expected: NDArray[np.float64]  # (S, K) the same by the scores that normals would have now; -inf where unknown

    def __init__(self, features: int, *, window: int, budgets: int) -> None:
        first = min(LABELLED_ENOUGH, window)
        zero, infinite = ColumnSpec((), np.int64), ColumnSpec((), np.float64, np.inf)
        columns = {
            "scores": ColumnSpec((window,), np.uint16, NO_SCORE),
            "first": ColumnSpec((first,), np.uint16, NO_SCORE),
            "labelled_count": zero,
            "unlabelled_count": zero,
            "fresh": zero,
            "log_level": infinite,
            "gate_level": infinite,
            "own": infinite,
            "expected": ColumnSpec((), np.float64, -np.inf),
            "alarm_level": ColumnSpec((budgets,), np.float64, np.inf),
            "alarm_expected": ColumnSpec((budgets,), np.float64, -np.inf),
        }
        super().__init__(features, columns)
        self.window = window

    def update(
        self,
        rows: NDArray[np.int64],
        scores: NDArray[np.float64],
        labelled: NDArray[np.bool_],
        unlabelled: NDArray[np.bool_],
        autocorrelation_gate: NDArray[np.float64],
        rates: NDArray[np.float64],
    ) -> None:
        """Take one batch of matured events in and set the levels anew.

        Args:
            rows: (A,) different sensors.
            scores: (A, B) log scores as they were made.
            labelled: (A, B) events labelled normal.
            unlabelled: (A, B) events without a label that may calibrate.
            autocorrelation_gate: (A,) mean gates of the sensors, for the static level.
            rates: (A, K) tolerated false incidents an event.
        """
        due = np.empty(len(rows), np.bool_)
        rings = self.scores, self.first, self.labelled_count, self.unlabelled_count
        with_memory = autocorrelation_gate >= MOST_GATE
        _push(rows, scores, labelled, unlabelled, with_memory, (self.log_level, self.fresh), rings, due)
        gates, tolerated = autocorrelation_gate[due], rates[due]
        for first in range(0, len(gates), CHUNK):
            chunk = slice(first, first + CHUNK)
            self._refresh(rows[due][chunk], gates[chunk], tolerated[chunk])

    def expect(self, row: int, scores: NDArray[np.float64], rates: NDArray[np.float64]) -> None:
        """Let the levels of a sensor be no lower than those by scores that are expected of normals from now on.

        Args:
            row: The sensor.
            scores: (n,) log scores of labelled normals.
            rates: (K,) its tolerated false incidents an event.
        """
        if len(scores) >= LABELLED_ENOUGH:
            pool, count = np.sort(scores)[None], np.array([len(scores)])
            self.expected[row] = tail_quantile(pool, count, ROW_RATE)[0]
            self.log_level[row] = max(self.own[row], self.expected[row])
            self.alarm_expected[row] = [tail_quantile(pool, count, rate)[0] for rate in rates.tolist()]
            self.alarm_level[row] = np.maximum(self.alarm_level[row], self.alarm_expected[row])

    def reset_after_outage(self, rows: NDArray[np.int64], autocorrelation_gate: NDArray[np.float64]) -> None:
        """Forget the scores of the sensors (A,), whose mean gates are (A,).

        The static level stands in, or the present one where that is higher.
        """
        present = np.where(np.isfinite(self.log_level[rows]), self.log_level[rows], -np.inf)
        self.own[rows] = self.log_level[rows] = np.maximum(present, static_level(autocorrelation_gate, ROW_RATE))
        self.scores[rows], self.first[rows] = NO_SCORE, NO_SCORE
        self.labelled_count[rows] = self.unlabelled_count[rows] = self.fresh[rows] = 0
        self.expected[rows] = self.alarm_expected[rows] = -np.inf

    def _refresh(
        self, rows: NDArray[np.int64], autocorrelation_gate: NDArray[np.float64], rates: NDArray[np.float64]
    ) -> None:
        """Set the levels of the sensors (A,), whose gates are (A,), from their rings; of tables also those of alarms.

        The latter are those at the rates (A, K).
        """
        self.fresh[rows] = 0
        number = self.labelled_count[rows]
        enough = number >= LABELLED_ENOUGH
        most = min(max(int(number.max()), 1), self.window)
        if not enough.all():
            most = max(most, min(int(self.unlabelled_count[rows].max()), self.window))
        codes = self.scores[rows, :most]
        if not enough.all():
            own = np.where(enough[:, None], np.uint16(NO_SCORE), self.first[rows])
            codes = np.concatenate([codes, own], axis=1)
        codes.sort(axis=1)
        count = (codes < NO_SCORE).sum(axis=1)
        pool = unpack_scores(codes)
        log_level = self._level(rows, pool, count, autocorrelation_gate, ROW_RATE)
        tables = np.flatnonzero(autocorrelation_gate < MOST_GATE)
        for k in range(rates.shape[1] if len(tables) else 0):
            level = self._level(
                rows[tables], pool[tables], count[tables], autocorrelation_gate[tables], rates[tables, k]
            )
            self.alarm_level[rows[tables], k] = np.maximum(level, self.alarm_expected[rows[tables], k])
        self.own[rows], self.log_level[rows] = log_level, np.maximum(log_level, self.expected[rows])
        self.gate_level[rows] = tail_quantile(pool, count, UNLABELLED_GATE_RATE)
        if enough.any():
            labelled = rows[enough]
            self.gate_level[labelled] = tail_quantile(*self._latest(labelled, GATE_LABELLED), 1 - GATE_QUANTILE)

    def _level(
        self,
        rows: NDArray[np.int64],
        pool: NDArray[np.float32],
        count: NDArray[np.int64],
        autocorrelation_gate: NDArray[np.float64],
        rate: NDArray[np.float64] | float,
    ) -> NDArray[np.float64]:
        """Return (A,) the log scores that normal events exceed at a rate, from their rings or the static level.

        Args:
            rows: (A,) sensors.
            pool: (A, W) their calibration scores, as ``tail_quantile`` takes them.
            count: (A,) numbers of these scores.
            autocorrelation_gate: (A,) mean gates, for the static level.
            rate: Rate an event, for all or (A,).
        """
        number, static = self.labelled_count[rows], static_level(autocorrelation_gate, rate)
        independence = self._independence(rows, tail_start(pool, count, rate)[1], self.window)
        log_level = tail_quantile(pool, count, rate, independence)
        many = np.flatnonzero((number >= RECENT) & (self.window >= RECENT))
        if len(many):
            latest, used = self._latest(rows[many], RECENT)
            own_rate = rate if isinstance(rate, float) else rate[many]
            recent = self._independence(rows[many], tail_start(latest, used, own_rate)[1], RECENT)
            log_level[many] = np.maximum(log_level[many], tail_quantile(latest, used, own_rate, recent))
        log_level = np.where(count >= FIRST_EVENTS, log_level, static)
        peaks = independence * TAIL_SHARES[1] * (number + self.unlabelled_count[rows])
        doubt = np.maximum(0, 1 - peaks / STATIC_PEAKS)
        return log_level + doubt * np.maximum(static - log_level, 0)

    def _latest(self, rows: NDArray[np.int64], most: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The last scores of labelled normals, ascending, and their number; as ``tail_quantile`` takes them.

        Nonsense where there are not enough of them yet.
        """
        number = self.labelled_count[rows]
        event_numbers = (number[:, None] - 1 - np.arange(min(most, self.window))) % self.window
        last, used = self.scores[rows[:, None], event_numbers], np.minimum(number, event_numbers.shape[1])
        last = np.sort(np.where(np.arange(last.shape[1]) < used[:, None], last, np.uint16(NO_SCORE)), axis=1)
        return unpack_scores(last), used

    def _independence(self, rows: NDArray[np.int64], base: NDArray[np.float64], most: int) -> NDArray[np.float64]:
        """(A,) independent peaks per excess of ``base`` among the last ``most`` scores, 0 to 1."""
        out = np.empty(len(rows))
        rings = self.scores, self.first, self.labelled_count, self.unlabelled_count
        _independence(rows, base, rings, most, out)
        return out


@kernel
def _push(
    rows: NDArray[np.int64],
    scores: NDArray[np.float64],
    labelled: NDArray[np.bool_],
    unlabelled: NDArray[np.bool_],
    with_memory: NDArray[np.bool_],
    sensors: Arrays,
    rings: Arrays,
    due: NDArray[np.bool_],
) -> None:
    """Put scores into the rings, and say whose level is to be set anew: much is new, or a normal event rang it."""
    log_level, fresh = sensors
    ring, first, labelled_count, unlabelled_count = rings
    window = ring.shape[1]
    for a in range(len(rows)):
        s = rows[a]
        rang = False
        for b in range(scores.shape[1]):
            if labelled[a, b]:
                rang |= scores[a, b] >= log_level[s]
                if labelled_count[s] < LABELLED_ENOUGH:
                    first[s, labelled_count[s] % first.shape[1]] = pack_score(scores[a, b])
                else:
                    ring[s, labelled_count[s] % window] = pack_score(scores[a, b])
                labelled_count[s] += 1
                fresh[s] += 1
                if labelled_count[s] == LABELLED_ENOUGH:  # from here on the ring is theirs
                    for slot in range(window):
                        ring[s, slot] = first[s, slot] if slot < first.shape[1] else np.uint16(NO_SCORE)
        for b in range(scores.shape[1]):
            # On a stream with memory a high score may be the first of a state that recurs, such as a weekend.
            if unlabelled[a, b] and (with_memory[a] or scores[a, b] <= log_level[s] + UNLABELLED_BAND):
                if labelled_count[s] < LABELLED_ENOUGH:
                    ring[s, unlabelled_count[s] % window] = pack_score(scores[a, b])
                unlabelled_count[s] += 1
                fresh[s] += 1
        resting = min(labelled_count[s] + unlabelled_count[s], window)
        due[a] = rang or fresh[s] * REFRESH_SHARE >= resting


@kernel
def _independence(
    rows: NDArray[np.int64], base: NDArray[np.float64], rings: Arrays, most: int, out: NDArray[np.float64]
) -> None:
    """The extremal index by the times between excesses (C. A. T. Ferro, J. Segers, J. R. Stat. Soc. B, 2003)."""
    scores, first, labelled_count, unlabelled_count = rings
    window = scores.shape[1]
    for a in range(len(rows)):
        s = rows[a]
        enough = labelled_count[s] >= LABELLED_ENOUGH
        least = (base[a] - LOWEST_SCORE) * SCORE_STEPS  # as a code
        pairs, once, twice = 0, 0.0, 0.0
        for which in range(1 if enough else 2):  # labelled ones, and until there are enough of them the others
            count = unlabelled_count[s] if which else labelled_count[s]
            ring = scores if enough or which else first
            last, begin = -1, max(np.int64(0), count - min(window, most))
            at = begin % ring.shape[1]
            for i in range(begin, count):
                code = ring[s, at]
                at = at + 1 if at + 1 < ring.shape[1] else 0  # a remainder for each would take most of the time
                if code > least:
                    if last >= 0:
                        between = i - last - 1.0
                        pairs += 1
                        once += between
                        twice += between * (between - 1)
                    last = i
        if pairs == 0:
            out[a] = 1.0
        elif twice > 0:
            out[a] = min(1.0, 2 * once * once / (pairs * twice))
        else:  # hardly anything between them: one run
            out[a] = min(1.0, max(once / pairs, 1 / (pairs + 1)))
