"""The autoencoder as the detector uses it: rebuilds scaled inputs, learns guided batches, replays normals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.model import transplant
from stream_ad.detector.model.device import to_device, to_numpy
from stream_ad.detector.model.numba_autoencoder import CompiledAutoencoder
from stream_ad.detector.model.replay_buffer import ReplayBuffer
from stream_ad.detector.model.training_batch import Batch, Inputs, Matured, SensorStatistics, scatter
from stream_ad.detector.row_store import NonsenseError, derived_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.config import DetectorOptions
    from stream_ad.detector.model.device import Device
    from stream_ad.detector.model.model_stack import Numbers, Stack

MOST_LAMBDA = 100.0


class OnlineAutoencoder:
    """Models (one per sensor, or one shared by all), their optimiser and their replay."""

    def __init__(self, features: int, options: DetectorOptions, device: Device) -> None:
        learning = options.learning
        self.features, self.width, self.device = features, derived_size(features), device
        self.shared = options.detector.models == "shared"
        self.batch, self.loss = learning.batch_events, learning.loss
        self.plain = not self.loss.amplify and not self.loss.score_penalty  # the loss of normal events
        self.stack = stack_on(device, self.width, rate=learning.rate)
        self.replay = ReplayBuffer(features, capacity=learning.replay_events, shared=self.shared)

    @property
    def size(self) -> int:
        return self.stack.size

    @property
    def nbytes(self) -> int:
        return self.replay.nbytes + self.stack.nbytes

    @property
    def held_bytes(self) -> int:
        return self.replay.held_bytes + self.stack.held_bytes

    def append(self, keys: NDArray[np.uint64]) -> None:
        """Add a model for each key (A,)."""
        self.stack.append(keys)
        self.replay.append(len(keys))
        self.replay.key[self.size - len(keys) : self.size] = keys

    def transplant(self, other: OnlineAutoencoder, model: int, *, positions: NDArray[np.int64]) -> None:
        """Let the last model go on from a model of fewer features (see transplant.embed)."""
        transplant.transplant(
            self.stack, other.stack, model, features=other.features, positions=positions, among=self.features
        )
        self.replay.copy_row(other.replay, model, positions=positions)
        if self.shared:
            self.replay.sensor[self.size - 1] = self.size - 1

    def copy(self, other: OnlineAutoencoder, model: int) -> None:
        """Let the last model be one of a network of as many features."""
        transplant.copy(self.stack, other.stack, model)
        self.replay.copy_row(other.replay, model, positions=np.arange(self.features))
        if self.shared:
            self.replay.sensor[self.size - 1] = self.size - 1

    def reset_feature(self, model: int, feature: int) -> None:
        """Let a model forget a feature."""
        transplant.reset_feature(self.stack, model, feature, among=self.features)
        self.replay.reset_feature(model, feature)

    def keep(self, models: NDArray[np.int64]) -> None:
        """Drop all models but these, in this order (each sensor has its own)."""
        self.stack.keep(models)
        self.replay.keep(models)

    def remove_sensor(self, row: int, last: int) -> None:
        """A sensor left and the last one took its row."""
        if not self.shared:
            self.stack.remove(row)
            self.replay.remove(row)
        self.replay.forget_sensor(row, last)

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Models, moments and replay, by name."""
        return {**self.stack.state(prefix + "model."), **self.replay.state(prefix + "replay.")}

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Take over what ``state`` gave; NonsenseError when it does not fit."""
        self.stack.load(prefix + "model.", arrays)
        self.replay.load(prefix + "replay.", arrays)
        if self.stack.size != self.replay.size:
            raise NonsenseError(f"{prefix}*: {self.stack.size} models, {self.replay.size} replay rings")

    def reconstruct(self, models: NDArray[np.int64], scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, d) reconstructions of scaled inputs (N, d), by the model (N,) of each."""
        return self.stack.reconstruct_events(models, scaled)

    def learn(
        self,
        rows: NDArray[np.int64],
        matured: Matured,
        statistics: NDArray[np.bool_],
        order: NDArray[np.int64],
        sensors: SensorStatistics,
    ) -> list[float]:
        """Two steps per batch: one on what is new, one on replayed normals. Returns the loss of each model.

        Args:
            rows: (A,) different sensors.
            matured: Their (A, B) events.
            statistics: (A, B) events that move the error variances, before the model learns them.
            order: (A, B) which of two events arrived first.
            own: What the sensors know of their inputs.
        """
        if not self.shared:
            return self._learn(rows, rows, matured, statistics, sensors)
        # The events of all sensors, in the order of their arrival, are rows of one model's batches.
        which = np.nonzero(matured.normal | matured.anomalous)
        in_order = np.argsort(order[which])
        losses: list[float] = []
        for start in range(0, len(in_order), self.batch):
            part = tuple(axis[in_order[start : start + self.batch]] for axis in which)
            now = np.zeros_like(statistics)
            now[part] = statistics[part]
            losses += self._learn(
                np.zeros(1, np.int64), rows, matured.gather(part, self.batch), now, sensors, part=part
            )
        return losses

    def _learn(
        self,
        models: NDArray[np.int64],
        rows: NDArray[np.int64],
        matured: Matured,
        statistics: NDArray[np.bool_],
        sensors: SensorStatistics,
        *,
        part: tuple[NDArray[np.int64], ...] | None = None,
    ) -> list[float]:
        """One batch of each model; ``part`` says where a shared model's events stand among the sensors'."""
        normal, anomalous, class_weight = matured.normal, matured.anomalous, matured.class_weight
        new = sensors.batch(matured.sensors if self.shared else rows, matured.derived, self.device)
        self.replay.push(models, matured.derived, matured.sensors, normal, sensors.scaler)
        normals, anomalies = normal.sum(axis=1), anomalous.sum(axis=1)
        few = (normals < self.batch // 2) & (self.replay.count[models] > 0)
        guided = anomalies * self.loss.alpha > 0
        idle = (normals == 0) & ~guided  # the moments of a model that has nothing to learn rest
        losses = np.zeros(len(models))
        plain = ~idle & ~few & ~guided
        at_once = bool(plain.all()) and self.plain
        if at_once:  # nearly always: the errors are those that the first step starts from
            weight = to_device(np.where(normal, class_weight, 0.0), self.device)
            again = sensors.replayed(self.replay, models, self.batch, self.device)
            loss, reconstructed = self.stack.plain_steps(
                models,
                (new.inputs, weight, new.weights),
                (again.inputs, to_device(np.ones_like(normal, np.float32), self.device), again.weights),
            )
            losses = _numbers(loss)
        else:
            reconstructed = self.stack.reconstruct_grid(models, new.inputs)
        scaled, error, observed = new.scaled, new.scaled - to_numpy(reconstructed), new.observed  # (A, B, d)
        if part is not None:
            scaled, error, observed = (scatter(array, part, statistics.shape) for array in (scaled, error, observed))
        sensors.scoring.update(rows, error, observed, statistics)
        sensors.linear_residuals.update(rows, scaled, observed, statistics)
        for chosen in () if at_once else (plain, ~idle & few & ~guided, guided & ~few, guided & few):
            some = np.flatnonzero(chosen)
            if not len(some):
                continue
            base: Inputs = new.take(some)
            weight_of = np.where(normal[some], class_weight[some], 0.0)
            if few[some[0]]:
                base = sensors.replayed(self.replay, models[some], self.batch, self.device)
                weight_of = np.ones((len(some), self.batch))
            anomaly_batch = (
                (new.take(some), np.where(anomalous[some], class_weight[some], 0.0)) if guided[some[0]] else None
            )
            losses[some] = self._descend(models[some], base, weight_of, sensors, guided=anomaly_batch)
        self.replay.anomalies[models] += anomalies
        if not at_once and len(busy := models[~idle & (self.replay.count[models] > 0)]):
            again = sensors.replayed(self.replay, busy, self.batch, self.device)
            self._descend(busy, again, np.ones((len(busy), self.batch)), sensors)
        losses_taken: list[float] = losses[~idle].tolist()
        return losses_taken

    def _descend(
        self,
        models: NDArray[np.int64],
        base: Inputs,
        weight: NDArray[np.float64],
        sensors: SensorStatistics,
        *,
        guided: tuple[Batch, NDArray[np.float64]] | None = None,
    ) -> NDArray[np.float64]:
        """One step on (A, B) normal events and, if given, labelled anomalies; returns (A,) losses."""
        if guided is None and self.plain:
            weights = to_device(weight, self.device)
            return _numbers(self.stack.train_step(models, base.inputs, weights, base.weights)[0])
        from stream_ad.detector.model.guided_step import AnomalyBatch, apply_gradient  # noqa: PLC0415 -- brings torch along (see device)

        anomaly_batch = None
        if guided is not None:
            lam = self._lambda(models, guided[1])
            anomaly_batch = AnomalyBatch(guided[0], guided[1], lam, sensors.variance(guided[0].rows, self.device))
        variance = sensors.variance(base.rows, self.device) if self.loss.score_penalty else None
        return apply_gradient(
            self.stack, models, base, weight, self.loss, self.device, anomaly_batch=anomaly_batch, variance=variance
        )

    def _lambda(self, models: NDArray[np.int64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """(A,) alpha divided by the odds of an anomaly so far, those of this batch included."""
        anomalies = self.replay.anomalies[models] + (weight > 0).sum(axis=1)
        odds = anomalies / np.maximum(self.replay.normals[models], 1)
        return self.loss.alpha * np.minimum(1 / odds, MOST_LAMBDA)


def stack_on(device: Device, width: int, *, rate: float) -> Stack:
    """No models yet, to be computed there."""
    if device == "cpu":
        return CompiledAutoencoder(width, rate=rate)
    from stream_ad.detector.model.cuda_autoencoder import CudaAutoencoder  # noqa: PLC0415 -- brings torch along (see device)

    return CudaAutoencoder(width, device=device, rate=rate)


def _numbers(loss: Numbers) -> NDArray[np.float64]:
    return np.asarray(to_numpy(loss), np.float64)
