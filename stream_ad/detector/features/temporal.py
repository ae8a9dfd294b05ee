"""Inputs derived from a sensor's own past, and the gate that says whether they mean anything.

Each feature x gives three inputs: x itself, x - EWMA(x), and EWMA(|x_t - x_{t-1}|). On a stream
without memory (shuffled rows, a table) the last two are noise; the gate closes them there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.row_store import ColumnSpec, SensorTable, derived_size
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL_RATE = 0.3
JUMP_RATE = 0.1
JUMP_CLIP = 8.0  # root mean square jumps: one step, such as the end of a fault, is no lasting unrest
GATE_WINDOW = 5000
GATE_FIRST_EVENTS = 64
GATE_CLIP_SD = 5.0
GATE_SHUT, GATE_OPEN = 0.2, 0.6  # lag-one autocorrelation between which the gate opens
MEMORY_CLIP_SD = 1000.0  # a reading farther off enters the averages as if no farther: they must recover from a glitch
CHECKPOINT_FIGURES = (
    6  # figures of each feature that say how what is derived goes on: level, last, jump and the reach of memory
)
NO_BLOCK = -(2**62)
MOST = 1e30  # of a reading less its shift: squares of it stay finite

NOT_KEPT = np.empty(0, np.int64), np.empty((0, 0, 0, 0), np.float32), 1


class TemporalFeatures(SensorTable):
    """State behind the derived inputs."""

    shift: NDArray[
        np.float64
    ]  # (S, F) taken off, so that float32 keeps the digits that vary; NaN before the first value
    last: NDArray[np.float64]  # (S, F) last value seen, NaN before
    level: NDArray[np.float64]  # (S, F) average of the values, NaN before the first
    jump: NDArray[np.float64]  # (S, F) average of the jumps, NaN before the first
    gate_count: NDArray[np.float64]  # (S, F)
    gate_mean: NDArray[np.float64]  # (S, F)
    gate_var: NDArray[np.float64]  # (S, F)
    gate_jump: NDArray[np.float64]  # (S, F) mean squared jump
    gate: NDArray[np.float64]  # (S, F) 0 closed … 1 open
    open_share: NDArray[np.float64]  # (S,) the mean gate

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
        """As of SensorTable; the mean gate is then one over more features."""
        super().copy_row(other, row, positions=positions)
        self.open_share[self.size - 1] = self.gate[self.size - 1].mean()

    def derive(
        self,
        rows: NDArray[np.int64],
        values: NDArray[np.float64],
        kept: tuple[NDArray[np.int64], NDArray[np.float32], int] | None = None,
    ) -> NDArray[np.float32]:
        """Derived inputs of the next events; moves the state of their sensors on.

        Args:
            rows: (N,) sensors, in the order of arrival.
            values: (N, F), NaN where missing.
            kept: Where to note what the first event of each block meets: (N,) the events' numbers,
                (S, blocks, 6, F) a ring of notes, events of a block.

        Returns:
            (N, d) float32, NaN where missing.
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
        """(A, B, d) what ``derive`` gave for kept events, to rounding.

        Args:
            rows: (A,) different sensors.
            places: (A, B) numbers of their events.
            readings: (S, R, F) the ring of readings, derived ones of the first kind.
            notes: (S, blocks, 6, F) of the blocks in it.
        """
        derived = np.empty((*event_numbers.shape, derived_size(self.features)), np.float32)
        _recompute(rows, event_numbers, readings, ewma_checkpoints, derived, np.empty((len(rows), 3, self.features)))
        return derived

    def remember(
        self, row: int, event_number: int, readings: NDArray[np.float32], ewma_checkpoints: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """(3, F) level, last value and jump after a kept event of a sensor; arguments as of ``recompute``."""
        derived, memory = np.empty((1, 1, derived_size(self.features)), np.float32), np.empty((1, 3, self.features))
        _recompute(np.array([row]), np.array([[event_number]]), readings, ewma_checkpoints, derived, memory)
        return memory[0]

    def update_gate(self, rows: NDArray[np.int64], event_numbers: NDArray[np.int64], ring: NDArray[np.float32]) -> None:
        """Look at the events of one learn interval, in order, whatever they were.

        Lag-one autocorrelation of each feature, 1 - E[jump²] / (2 Var), opens its gate between .2
        and .6. Only jumps between neighbours inside the interval count: one in B is left out, and
        no state is needed.

        Args:
            rows: (A,) different sensors.
            places: (A, B) where their events stand in the ring.
            ring: (S, R, k) derived inputs as ``derive`` gave them, the readings at least.
        """
        figures = self.gate_count, self.gate_mean, self.gate_var, self.gate_jump
        _update_gate(rows, event_numbers, ring, figures, self.gate)
        self.open_share[rows] = self.gate[rows].mean(axis=1)

    def autocorrelation_gate(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(A,) the mean gate of a sensor's features."""
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
            known = gate_count[s, f] >= GATE_FIRST_EVENTS and gate_var[s, f] > 0
            if known and far * far > MEMORY_CLIP_SD**2 * gate_var[s, f]:
                reach = MEMORY_CLIP_SD * np.sqrt(gate_var[s, f])
                bounded = min(max(x, gate_mean[s, f] - reach), gate_mean[s, f] + reach)
            # The first value of an average is the average.
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
                if known and size * size > JUMP_CLIP**2 * gate_jump[s, f]:
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
        s, here, current = rows[a], np.int64(0), NO_BLOCK  # here: the event that comes next
        for b in range(event_numbers.shape[1]):
            event_number = event_numbers[a, b]
            at = event_number // block % ewma_checkpoints.shape[1]
            if event_number < here or event_number // block != current:
                current = event_number // block
                here = current * block
                for f in range(features):
                    level[f], last[f], jump[f] = (
                        ewma_checkpoints[s, at, 0, f],
                        ewma_checkpoints[s, at, 1, f],
                        ewma_checkpoints[s, at, 2, f],
                    )
            out[a, b, 3 * features :] = np.nan
            while here <= event_number:
                slot = here % readings.shape[1]
                for f in range(features):
                    x = np.float64(readings[s, slot, f])
                    there = not np.isnan(x)
                    low, high = np.float64(ewma_checkpoints[s, at, 3, f]), np.float64(ewma_checkpoints[s, at, 4, f])
                    bounded = x
                    if x < low or x > high:  # never where nothing was noted of a feature
                        bounded = min(max(x, low), high)
                    size = abs(bounded - last[f])  # NaN where one of the two is missing
                    if size > ewma_checkpoints[s, at, 5, f]:
                        size = np.float64(ewma_checkpoints[s, at, 5, f])
                    if np.isnan(level[f]):
                        level[f] = bounded
                    elif there:
                        level[f] += LEVEL_RATE * (bounded - level[f])
                    if np.isnan(jump[f]):
                        jump[f] = size
                    elif there:
                        jump[f] += JUMP_RATE * (size - jump[f])
                    if there:
                        last[f] = bounded
                    if here == event_number:
                        out[a, b, f] = x
                        out[a, b, features + f] = x - level[f]
                        out[a, b, 2 * features + f] = jump[f] if there else np.nan
                here += 1
        for f in range(features):
            memory[a, 0, f], memory[a, 1, f], memory[a, 2, f] = level[f], last[f], jump[f]


@kernel
def _update_gate(
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    ring: NDArray[np.float32],
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
                x = np.float64(ring[s, event_numbers[a, b], f])
                if not np.isnan(x):
                    x = min(max(x, low), high)
                    number += 1
                    total += x - mean[s, f]
                    if not np.isnan(before):
                        pairs += 1
                        jumps += (x - before) ** 2
                before = x
            if pairs == 0:  # an interval without neighbours says nothing about memory
                continue
            delta = total / number
            centre = mean[s, f] + delta
            for b in range(steps):
                x = np.float64(ring[s, event_numbers[a, b], f])
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
