"""Inputs derived from a sensor's own past, and the gate that says whether they mean anything.

Each feature x gives three inputs: x itself, x - EWMA(x), and EWMA(|x_t - x_{t-1}|). On a stream
without memory (shuffled rows, a table) the last two are noise; the gate closes them there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from stream_ad.detector.rows import Column, Rows, derived_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

Float = TypeVar("Float", np.float32, np.float64)

LEVEL_RATE = 0.3
JUMP_RATE = 0.1
GATE_WINDOW = 5000
GATE_FIRST_EVENTS = 64
GATE_CLIP_SD = 5.0
MEMORY_CLIP_SD = 1000.0  # a reading farther off enters the averages as if no farther: they must recover from a glitch
MOST = 1e30  # of a reading less its shift: squares of it stay finite


def ewma_scan(inputs: NDArray[Float], rates: NDArray[Float], start: NDArray[Float]) -> NDArray[Float]:
    """Exponentially weighted moving averages, one step after the other.

    Taken step by step and not as a matrix product, so that the result does not depend on where a
    stream was cut.

    Args:
        inputs: (T, A, K), finite; what stands where the rate is 0 has no effect.
        rates: (T, A, K); 0 keeps the average (missing), 1 replaces it (first value).
        start: (A, K).

    Returns:
        (T, A, K), the average after each step.
    """
    out = np.empty_like(inputs)
    state = start
    delta = np.empty_like(start)
    for t in range(len(inputs)):
        np.subtract(inputs[t], state, out=delta)
        delta *= rates[t]
        state = np.add(state, delta, out=out[t])
    return out


class Context(Rows):
    """State behind the derived inputs."""

    shift: NDArray[np.float64]  # (S, F) first value seen; taken off so that float32 keeps the digits that vary
    last: NDArray[np.float64]  # (S, F) last value seen, NaN before
    level: NDArray[np.float64]  # (S, F) average of the values, NaN before the first
    jump: NDArray[np.float64]  # (S, F) average of the jumps, NaN before the first
    gate_count: NDArray[np.float64]  # (S, F)
    gate_mean: NDArray[np.float64]  # (S, F)
    gate_var: NDArray[np.float64]  # (S, F)
    gate_jump: NDArray[np.float64]  # (S, F) mean squared jump
    gate: NDArray[np.float64]  # (S, F) 0 closed … 1 open

    def __init__(self, features: int) -> None:
        wide = Column((features,), np.float64, np.nan, "features")
        zero = Column((features,), np.float64, 0.0, "features")
        super().__init__(
            features,
            {
                "shift": wide,
                "last": wide,
                "level": wide,
                "jump": wide,
                "gate_count": zero,
                "gate_mean": zero,
                "gate_var": zero,
                "gate_jump": zero,
                "gate": zero,
            },
        )

    def derive(self, rows: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Derived inputs of the next events of some sensors; moves their state on.

        Args:
            rows: (A,) different sensors.
            values: (T, A, F), NaN where missing or past a sensor's last event.

        Returns:
            (T, A, d) float32, NaN where missing.
        """
        steps, _, features = values.shape
        shift = self.shift[rows]
        if np.isnan(shift).any():
            observed = ~np.isnan(values)
            first = np.take_along_axis(values, observed.argmax(axis=0)[None], axis=0)[0]  # NaN where none
            shift = np.where(np.isnan(shift), first, shift)
            self.shift[rows] = shift
        with np.errstate(over="ignore"):
            x = np.clip(values - shift, -MOST, MOST)  # (T, A, F)
        observed = ~np.isnan(x)
        bounded = self._bounded(rows, x)
        previous = self._previous(rows, bounded, observed)
        has_previous = observed & ~np.isnan(previous)
        jumps = np.where(has_previous, np.abs(bounded - previous), 0.0)
        inputs = np.concatenate([np.where(observed, bounded, 0.0), jumps], axis=2)  # (T, A, 2F)
        start = np.concatenate([self.level[rows], self.jump[rows]], axis=1)
        present = np.concatenate([observed, has_previous], axis=2)
        rates = present * np.repeat([LEVEL_RATE, JUMP_RATE], features)
        unset = np.isnan(start)
        if unset.any():  # the first value of an average is the average
            first_seen = (np.cumsum(present, axis=0) == 1) & present & unset
            rates[first_seen] = 1.0
            start = np.where(unset, 0.0, start)
        averages = ewma_scan(inputs, rates, start)  # (T, A, 2F)
        seen = ~unset | present.any(axis=0)
        end = np.where(seen, averages[-1], np.nan)
        self.level[rows], self.jump[rows] = end[:, :features], end[:, features:]
        derived = np.full((steps, len(rows), derived_size(features)), np.nan, np.float32)
        derived[..., :features] = x
        derived[..., features : 2 * features] = x - averages[..., :features]
        derived[..., 2 * features : 3 * features] = np.where(has_previous, averages[..., features:], np.nan)
        return derived

    def _bounded(self, rows: NDArray[np.int64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """(T, A, F) the values, no farther from their mean than the averages can forget soon."""
        var = self.gate_var[rows]
        known = (self.gate_count[rows] >= GATE_FIRST_EVENTS) & (var > 0)
        reach = np.where(known, MEMORY_CLIP_SD * np.sqrt(var), np.inf)
        mean = self.gate_mean[rows]
        return np.clip(x, mean - reach, mean + reach)

    def _previous(
        self, rows: NDArray[np.int64], x: NDArray[np.float64], observed: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """(T, A, F) the last observed value before each; moves ``last`` on."""
        chain = np.concatenate([self.last[rows][None], x])  # (T + 1, A, F)
        if not observed.all():
            held = np.concatenate([np.ones_like(observed[:1]), observed])
            index = np.maximum.accumulate(held * np.arange(len(chain))[:, None, None], axis=0)
            chain = np.take_along_axis(chain, index, axis=0)
        self.last[rows] = chain[-1]
        return chain[:-1]

    def update_gate(self, rows: NDArray[np.int64], derived: NDArray[np.float32]) -> None:
        """Look at the events of one learn interval, in order, whatever they were.

        Lag-one autocorrelation of each feature, 1 - E[jump²] / (2 Var), opens its gate between .2
        and .6.

        Args:
            rows: (A,) different sensors.
            derived: (A, B, d) as ``derive`` gave it; NaN rows are ignored.
        """
        f = self.features
        x = derived[..., :f].astype(np.float64)  # (A, B, F)
        observed = ~np.isnan(x)
        number = observed.sum(axis=1)  # (A, F)
        before = self.gate_count[rows]
        mean, var, jump = self.gate_mean[rows], self.gate_var[rows], self.gate_jump[rows]
        enough = before >= GATE_FIRST_EVENTS
        reach = np.where(enough, GATE_CLIP_SD * np.sqrt(var), np.inf)[:, None]
        x = np.clip(np.where(observed, x, 0.0), mean[:, None] - reach, mean[:, None] + reach)
        # Only jumps between neighbours inside the interval: one in B is left out, no state is needed.
        both = observed[:, 1:] & observed[:, :-1]
        jump2 = np.where(both, (x[:, 1:] - x[:, :-1]) ** 2, 0.0).sum(axis=1) / np.maximum(both.sum(axis=1), 1)
        batch_mean = np.where(observed, x, 0.0).sum(axis=1) / np.maximum(number, 1)
        batch_var = np.where(observed, (x - batch_mean[:, None]) ** 2, 0.0).sum(axis=1) / np.maximum(number, 1)
        count = before + number
        rate = np.where(number > 0, number / np.maximum(np.minimum(count, GATE_WINDOW), 1), 0.0)
        delta = batch_mean - mean
        self.gate_count[rows] = count
        self.gate_mean[rows] = mean + rate * delta
        self.gate_var[rows] = (1 - rate) * (var + rate * delta**2) + rate * batch_var
        self.gate_jump[rows] = jump + rate * (jump2 - jump)
        var = self.gate_var[rows]
        correlation = 1 - self.gate_jump[rows] / np.maximum(2 * var, 1e-300)
        gate = np.clip((correlation - 0.2) / 0.4, 0.0, 1.0)
        self.gate[rows] = np.where((count >= GATE_FIRST_EVENTS) & (var > 0), gate, 0.0)

    def weights(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(A, d) weight of each derived input: 1 for the value, the gate for the other two."""
        gate = self.gate[rows]
        out = np.zeros((len(rows), derived_size(self.features)), np.float32)
        out[:, : 3 * self.features] = np.concatenate([np.ones_like(gate), gate, gate], axis=1)
        return out

    def openness(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(A,) the mean gate of a sensor's features."""
        return self.gate[rows].mean(axis=1)
