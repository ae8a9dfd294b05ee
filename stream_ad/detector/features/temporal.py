"""Inputs derived from the past of a sensor, and the gate that shuts them off where they mean nothing.

Each feature x gives three inputs: x itself, x - EWMA(x), and EWMA(|x_t - x_{t-1}|). On a stream without memory
(shuffled rows, a table) the last two are noise, and the autocorrelation gate closes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.row_store import ColumnSpec, SensorTable, derived_size
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL_RATE = 0.3  # of the EWMA of the readings
JUMP_RATE = 0.1  # of the EWMA of the jumps
JUMP_CLIP = 8.0  # root mean square jumps at which a jump is clipped: one step, as at the end of a fault, is no unrest
GATE_WINDOW = 5000  # events that the autocorrelation looks back
GATE_FIRST_EVENTS = 64  # events before which the gate stays closed
GATE_CLIP_SD = 5.0  # standard deviations at which readings enter the autocorrelation clipped
GATE_SHUT, GATE_OPEN = 0.2, 0.6  # lag-one autocorrelation at which the gate begins to open, and is fully open
MEMORY_CLIP_SD = 1000.0  # standard deviations at which readings enter the EWMAs: they must recover from a glitch
CHECKPOINT_FIGURES = 6  # per feature: level, last reading, jump, both bounds of the clipped reading, largest jump
NO_BLOCK = -(2**62)  # no event has this block number
MOST = 1e30  # largest distance of a reading from its shift: its square is still finite

NOT_KEPT = np.empty(0, np.int64), np.empty((0, 0, 0, 0), np.float32), 1
"""Stands for no checkpoints in ``_derive``, whose arguments must keep their types."""


class TemporalFeatures(SensorTable):
    """EWMAs behind the derived inputs, and the autocorrelation gate, per sensor and feature.

    The inputs fail where the past says nothing of the present although it is correlated: after an interruption the
    first deviation and jump are measured against readings from before it.
    """

    # (S, F) subtracted from readings, so that float32 keeps the digits that vary; NaN before the first reading
    shift: NDArray[np.float64]
    last: NDArray[np.float64]  # (S, F) last reading less its shift, NaN before the first
    level: NDArray[np.float64]  # (S, F) EWMA of the readings less their shift, NaN before the first
    jump: NDArray[np.float64]  # (S, F) EWMA of the absolute jumps, NaN before the first
    gate_count: NDArray[np.float64]  # (S, F) events behind the figures of the gate
    gate_mean: NDArray[np.float64]  # (S, F)
    gate_var: NDArray[np.float64]  # (S, F)
    gate_jump: NDArray[np.float64]  # (S, F) mean squared jump
    gate: NDArray[np.float64]  # (S, F) 0 closed to 1 open
    open_share: NDArray[np.float64]  # (S,) mean gate of the features

    def __init__(self, features: int) -> None:
        wide = ColumnSpec((features,), np.float64, np.nan, "features")
        zero = ColumnSpec((features,), np.float64, 0.0, "features")
        super().__init__(
            features,
            {
                "shift": wide,
                "last": wide,
                "level": wide,
                "jump": wide,
                **dict.fromkeys(("gate_count", "gate_mean", "gate_var", "gate_jump", "gate"), zero),
                "open_share": ColumnSpec((), np.float64),
            },
        )

    def copy_row(self, other: SensorTable, row: int, *, positions: NDArray[np.int64]) -> None:
        """Copy a row, with ``positions`` (F_other,) as in SensorTable; the mean gate is taken over all features."""
        super().copy_row(other, row, positions=positions)
        self.open_share[self.size - 1] = self.gate[self.size - 1].mean()

    def derive(
        self,
        rows: NDArray[np.int64],
        values: NDArray[np.float64],
        kept: tuple[NDArray[np.int64], NDArray[np.float32], int] | None = None,
    ) -> NDArray[np.float32]:
        """Derive the inputs of the next events, and move the EWMAs of their sensors on.

        Args:
            rows: (N,) sensors, in the order of arrival.
            values: (N, F) readings, NaN where missing.
            kept: Where to store a checkpoint of the EWMAs at the first event of each block: (N,) numbers of the
                events, (S, blocks, 6, F) ring of checkpoints, events per block.

        Returns:
            (N, d) derived inputs, NaN where missing.
        """
        derived = np.empty((len(rows), derived_size(self.features)), np.float32)
        memory = self.shift, self.last, self.level, self.jump
        gate = self.gate_count, self.gate_mean, self.gate_var, self.gate_jump
        _derive(rows, values, memory, gate, kept or NOT_KEPT, derived)
        return derived

    def recompute(
        self,
        rows: NDArray[np.int64],
        event_numbers: NDArray[np.int64],
        readings: NDArray[np.float32],
        ewma_checkpoints: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return (A, B, d) the inputs that ``derive`` gave for kept events, up to rounding.

        The EWMAs are replayed from the checkpoint at the first event of a block.

        Args:
            rows: (A,) different sensors.
            event_numbers: (A, B) numbers of their events.
            readings: (S, R, F) ring of readings less their shift.
            ewma_checkpoints: (S, blocks, 6, F) checkpoints of the blocks in that ring.
        """
        derived = np.empty((*event_numbers.shape, derived_size(self.features)), np.float32)
        _recompute(rows, event_numbers, readings, ewma_checkpoints, derived, np.empty((len(rows), 3, self.features)))
        return derived

    def remember(
        self, row: int, event_number: int, readings: NDArray[np.float32], ewma_checkpoints: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return (3, F) level, last reading and jump after a kept event of a sensor.

        Args:
            row: The sensor.
            event_number: Number of the event.
            readings: (S, R, F) as in ``recompute``.
            ewma_checkpoints: (S, blocks, 6, F) as in ``recompute``.
        """
        derived, memory = np.empty((1, 1, derived_size(self.features)), np.float32), np.empty((1, 3, self.features))
        _recompute(np.array([row]), np.array([[event_number]]), readings, ewma_checkpoints, derived, memory)
        return memory[0]

    def update_gate(
        self,
        rows: NDArray[np.int64],
        event_numbers: NDArray[np.int64],
        ring: NDArray[np.float32],
        left_out: NDArray[np.bool_],
    ) -> None:
        """Update the gate with all events of one learn interval, whatever their labels.

        The lag-one autocorrelation of each feature, 1 - E[jump²] / (2 Var), opens its gate between .2 and .6. Only
        jumps between neighbours inside the interval count: one jump in B is left out, and no state is needed.

        Args:
            rows: (A,) different sensors.
            event_numbers: (A, B) slots of their events in the ring, in order.
            ring: (S, R, k) derived inputs, of which the readings are used.
            left_out: (A, B) events that say nothing.
        """
        figures = self.gate_count, self.gate_mean, self.gate_var, self.gate_jump
        _update_gate(rows, event_numbers, ring, left_out, figures, self.gate)
        self.open_share[rows] = self.gate[rows].mean(axis=1)

    def autocorrelation_gate(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (A,) the mean gate over the features of each sensor (A,): 0 for a table, 1 for a time series."""
        return self.open_share[rows]


@kernel
def _derive(
    rows: NDArray[np.int64],
    values: NDArray[np.float64],
    memory: Arrays,
    gate: Arrays,
    kept: tuple[NDArray[np.int64], NDArray[np.float32], int],
    out: NDArray[np.float32],
) -> None:
    shift, last, level, jump = memory
    gate_count, gate_mean, gate_var, gate_jump = gate
    event_numbers, ewma_checkpoints, block = kept
    features = values.shape[1]
    for n in range(len(rows)):
        s = rows[n]
        if len(event_numbers) and event_numbers[n] % block == 0:
            at = event_numbers[n] // block % ewma_checkpoints.shape[1]
            for f in range(features):
                ewma_checkpoints[s, at, 0, f], ewma_checkpoints[s, at, 1, f], ewma_checkpoints[s, at, 2, f] = (
                    level[s, f],
                    last[s, f],
                    jump[s, f],
                )
                reach = most = np.inf
                if gate_count[s, f] >= GATE_FIRST_EVENTS and gate_var[s, f] > 0:
                    reach = MEMORY_CLIP_SD * np.sqrt(gate_var[s, f])
                    most = JUMP_CLIP * np.sqrt(gate_jump[s, f])
                ewma_checkpoints[s, at, 3, f], ewma_checkpoints[s, at, 4, f] = (
                    gate_mean[s, f] - reach,
                    gate_mean[s, f] + reach,
                )
                ewma_checkpoints[s, at, 5, f] = most
        out[n, 3 * features :] = np.nan
        for f in range(features):
            value = values[n, f]
            if np.isnan(value):
                out[n, f] = out[n, features + f] = out[n, 2 * features + f] = np.nan
                continue
            if np.isnan(shift[s, f]):
                shift[s, f] = 0.0  # until the first learn point: one value may be a glitch, and says nothing
            x = min(max(value - shift[s, f], -MOST), MOST)
            bounded = x
            far = x - gate_mean[s, f]
            settled = gate_count[s, f] >= GATE_FIRST_EVENTS and gate_var[s, f] > 0
            if settled and far * far > MEMORY_CLIP_SD**2 * gate_var[s, f]:
                reach = MEMORY_CLIP_SD * np.sqrt(gate_var[s, f])
                bounded = min(max(x, gate_mean[s, f] - reach), gate_mean[s, f] + reach)
            # An EWMA begins with the first value.
            if np.isnan(level[s, f]):
                level[s, f] = bounded
            else:
                level[s, f] += LEVEL_RATE * (bounded - level[s, f])
            out[n, f] = x
            out[n, features + f] = x - level[s, f]
            if np.isnan(last[s, f]):
                out[n, 2 * features + f] = np.nan
            else:
                size = abs(bounded - last[s, f])
                if settled and size * size > JUMP_CLIP**2 * gate_jump[s, f]:
                    size = JUMP_CLIP * np.sqrt(gate_jump[s, f])
                if np.isnan(jump[s, f]):
                    jump[s, f] = size
                else:
                    jump[s, f] += JUMP_RATE * (size - jump[s, f])
                out[n, 2 * features + f] = jump[s, f]
            last[s, f] = bounded


@kernel
def _recompute(
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    readings: NDArray[np.float32],
    ewma_checkpoints: NDArray[np.float32],
    out: NDArray[np.float32],
    memory: NDArray[np.float64],
) -> None:
    features = readings.shape[2]
    block = readings.shape[1] // ewma_checkpoints.shape[1]
    level, last, jump = np.empty(features), np.empty(features), np.empty(features)
    for a in range(len(rows)):
        s, next_event, current = rows[a], np.int64(0), NO_BLOCK
        for b in range(event_numbers.shape[1]):
            event_number = event_numbers[a, b]
            at = event_number // block % ewma_checkpoints.shape[1]
            if event_number < next_event or event_number // block != current:
                current = event_number // block
                next_event = current * block
                for f in range(features):
                    level[f], last[f], jump[f] = (
                        ewma_checkpoints[s, at, 0, f],
                        ewma_checkpoints[s, at, 1, f],
                        ewma_checkpoints[s, at, 2, f],
                    )
            out[a, b, 3 * features :] = np.nan
            while next_event <= event_number:
                slot = next_event % readings.shape[1]
                for f in range(features):
                    x = np.float64(readings[s, slot, f])
                    present = not np.isnan(x)
                    low, high = np.float64(ewma_checkpoints[s, at, 3, f]), np.float64(ewma_checkpoints[s, at, 4, f])
                    bounded = x
                    if x < low or x > high:  # never where the bounds are NaN
                        bounded = min(max(x, low), high)
                    size = abs(bounded - last[f])  # NaN where one of the two is missing
                    if size > ewma_checkpoints[s, at, 5, f]:
                        size = np.float64(ewma_checkpoints[s, at, 5, f])
                    if np.isnan(level[f]):
                        level[f] = bounded
                    elif present:
                        level[f] += LEVEL_RATE * (bounded - level[f])
                    if np.isnan(jump[f]):
                        jump[f] = size
                    elif present:
                        jump[f] += JUMP_RATE * (size - jump[f])
                    if present:
                        last[f] = bounded
                    if next_event == event_number:
                        out[a, b, f] = x
                        out[a, b, features + f] = x - level[f]
                        out[a, b, 2 * features + f] = jump[f] if present else np.nan
                next_event += 1
        for f in range(features):
            memory[a, 0, f], memory[a, 1, f], memory[a, 2, f] = level[f], last[f], jump[f]


@kernel
def _update_gate(
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    ring: NDArray[np.float32],
    left_out: NDArray[np.bool_],
    figures: Arrays,
    gate: NDArray[np.float64],
) -> None:
    count, mean, var, jump = figures
    steps = event_numbers.shape[1]
    for a in range(len(rows)):
        s = rows[a]
        for f in range(gate.shape[1]):
            enough = count[s, f] >= GATE_FIRST_EVENTS
            reach = GATE_CLIP_SD * np.sqrt(var[s, f]) if enough else np.inf
            low, high = mean[s, f] - reach, mean[s, f] + reach
            number, total, square, pairs, jumps, before = 0, 0.0, 0.0, 0, 0.0, np.nan
            for b in range(steps):
                x = np.nan if left_out[a, b] else np.float64(ring[s, event_numbers[a, b], f])
                if not np.isnan(x):
                    x = min(max(x, low), high)
                    number += 1
                    total += x - mean[s, f]
                    if not np.isnan(before):
                        pairs += 1
                        jumps += (x - before) ** 2
                before = x
            if pairs == 0:  # an interval without neighbours says nothing about autocorrelation
                continue
            delta = total / number
            centre = mean[s, f] + delta
            for b in range(steps):
                x = np.nan if left_out[a, b] else np.float64(ring[s, event_numbers[a, b], f])
                if not np.isnan(x):
                    square += (min(max(x, low), high) - centre) ** 2
            count[s, f] += number
            rate = number / min(count[s, f], GATE_WINDOW)
            mean[s, f] += rate * delta
            var[s, f] = (1 - rate) * (var[s, f] + rate * delta**2) + rate * (square / number)
            jump[s, f] += rate * (jumps / pairs - jump[s, f])
            gate[s, f] = 0.0
            if count[s, f] >= GATE_FIRST_EVENTS and var[s, f] > 0:
                correlation = 1 - jump[s, f] / (2 * var[s, f])
                gate[s, f] = min(max((correlation - GATE_SHUT) / (GATE_OPEN - GATE_SHUT), 0.0), 1.0)
