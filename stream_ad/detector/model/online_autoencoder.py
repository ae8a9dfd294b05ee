"""The autoencoder as the detector uses it: it reconstructs inputs, learns guided batches and replays normal events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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

MOST_LAMBDA = 100.0  # limit of 1 / odds of an anomaly: one rare label must not outweigh all normal events


class OnlineAutoencoder:
    """M models, one per sensor or one shared by all, with their optimiser and replay buffer."""

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
        """Number of models, M."""
        return self.stack.size

    @property
    def nbytes(self) -> int:
        """Bytes of models and replay buffers in use."""
        return self.replay.nbytes + self.stack.nbytes

    @property
    def held_bytes(self) -> int:
        """Bytes of models and replay buffers, including those reserved for later sensors."""
        return self.replay.held_bytes + self.stack.held_bytes

    def append(self, keys: NDArray[np.uint64]) -> None:
        """Add a model for each key (A,), which decides its initial weights and its draws from the replay buffer."""
        self.stack.append(keys)
        self.replay.append(len(keys))
        self.replay.key[self.size - len(keys) : self.size] = keys

    def transplant(self, other: OnlineAutoencoder, model: int, *, positions: NDArray[np.int64]) -> None:
        """Continue a model of an autoencoder with fewer features as the last model.

        Args:
            other: The autoencoder with fewer features.
            model: Its model.
            positions: (F_other,) index of each of its features among those of this one.
        """
        self.stack.transplant(other.stack, model, features=other.features, positions=positions, among=self.features)
        self._copy_replay(other, model, positions)

    def copy(self, other: OnlineAutoencoder, model: int) -> None:
        """Make the last model a copy of a model of an autoencoder with as many features."""
        self.stack.copy_model(other.stack, model)
        self._copy_replay(other, model, np.arange(self.features))

    def _copy_replay(self, other: OnlineAutoencoder, model: int, positions: NDArray[np.int64]) -> None:
        self.replay.copy_row(other.replay, model, positions=positions)
        if self.shared:
            self.replay.sensor[self.size - 1] = self.size - 1

    def reset_feature(self, model: int, feature: int) -> None:
        """Make a model forget a feature."""
        self.stack.reset_feature(model, feature, among=self.features)
        self.replay.reset_feature(model, feature)

    def keep(self, models: NDArray[np.int64]) -> None:
        """Keep only the models (A,), in this order; each sensor must have its own."""
        self.stack.keep(models)
        self.replay.keep(models)

    def remove_sensor(self, row: int, last: int) -> None:
        """Drop the model and the replayed events of a sensor, to whose row the last sensor has moved."""
        if not self.shared:
            self.stack.remove(row)
            self.replay.remove(row)
        self.replay.forget_sensor(row, last)

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return models, moments and replay buffers, arrays such as (M, P) by name, for a snapshot."""
        return {**self.stack.state(prefix + "model."), **self.replay.state(prefix + "replay.")}

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Restore the arrays, such as (M, P), that ``state`` returned; raises NonsenseError if they do not fit."""
        self.stack.load(prefix + "model.", arrays)
        self.replay.load(prefix + "replay.", arrays)
        if self.stack.size != self.replay.size:
            raise NonsenseError(f"{prefix}*: {self.stack.size} models, {self.replay.size} replay rings")

    def reconstruct(self, models: NDArray[np.int64], scaled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N, d) reconstructions, in (0, 1), of scaled inputs (N, d) by the models (N,)."""
        return self.stack.reconstruct_events(models, scaled)

    def learn(
        self,
        rows: NDArray[np.int64],
        matured: Matured,
        statistics: NDArray[np.bool_],
        order: NDArray[np.int64],
        sensors: SensorStatistics,
    ) -> list[float]:
        """Learn matured events: one training step on them and one on replayed normal events, per batch.

        A shared model learns the events of all sensors in the order of their arrival, batch by batch.

        Args:
            rows: (A,) different sensors.
            matured: Their events (A, B).
            statistics: (A, B) events that update the error variances, before the model learns them.
            order: (A, B) rising with the arrival of the events; used by a shared model only.
            sensors: Statistics of the inputs of the sensors.

        Returns:
            The loss of each model that learned something.
        """
        if not self.shared:
            return self._learn(rows, rows, matured, statistics, sensors)
        # The events of all sensors, in the order of their arrival, are rows of one model's batches.
        which = np.nonzero(matured.normal | matured.anomalous)
        in_order = np.argsort(order[which])
        losses: list[float] = []
        for start in range(0, len(in_order), self.batch):
            part = tuple(axis[in_order[start : start + self.batch]] for axis in which)
            updating = np.zeros_like(statistics)
            updating[part] = statistics[part]
            model = np.zeros(1, np.int64)
            losses += self._learn(model, rows, matured.gather(part, self.batch), updating, sensors, part=part)
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
        """Learn one batch per model.

        1. Push the normal events into the replay buffer.
        2. Update error variances and residuals with the errors from before any step.
        3. Take a step on the new events. Where fewer than half of them are normal, replayed events replace the
           normal ones.
        4. Take a step on replayed normal events.

        Where all models take the plain steps 3 and 4, both are taken at once, before 2, which they do not depend on.

        Args:
            models: (M,) models.
            rows: (A,) sensors.
            matured: Events (M, B).
            statistics: (A, B) events that update the statistics.
            sensors: Statistics of the inputs of the sensors.
            part: Indices of the events of a shared model among those of the sensors (A, B).
        """
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
        if at_once:  # nearly always: the first step also gives the errors from before it
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
            group = np.flatnonzero(chosen)
            if not len(group):
                continue
            base: Inputs = new.take(group)
            weight_of = np.where(normal[group], class_weight[group], 0.0)
            if few[group[0]]:
                base = sensors.replayed(self.replay, models[group], self.batch, self.device)
                weight_of = np.ones((len(group), self.batch))
            anomaly_batch = (
                (new.take(group), np.where(anomalous[group], class_weight[group], 0.0)) if guided[group[0]] else None
            )
            losses[group] = self._descend(models[group], base, weight_of, sensors, guided=anomaly_batch)
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
        """Take one step on normal events (A, B) with weights (A, B) and, if given, labelled anomalies.

        Returns:
            (A,) losses before the step.
        """
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
        """Return (A,) alpha divided by the odds of an anomaly so far, including those of this batch (A, B)."""
        anomalies = self.replay.anomalies[models] + (weight > 0).sum(axis=1)
        odds = anomalies / np.maximum(self.replay.normals[models], 1)
        return self.loss.alpha * np.minimum(1 / odds, MOST_LAMBDA)


def stack_on(device: Device, width: int, *, rate: float) -> Stack:
    """Return an empty stack of models of a width and learning rate on a device."""
    if device == "cpu":
        return CompiledAutoencoder(width, rate=rate)
    from stream_ad.detector.model.cuda_autoencoder import CudaAutoencoder  # noqa: PLC0415 -- brings torch along (see device)

    return CudaAutoencoder(width, device=device, rate=rate)


def _numbers(loss: Numbers) -> NDArray[np.float64]:
    return np.asarray(to_numpy(loss), np.float64)
