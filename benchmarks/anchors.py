"""Anchors of benchmarks/detector.py: river's half-space trees, bare torch, single models."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from river import anomaly, compose, preprocessing

from stream_ad.records.columns import Events, ValueBlock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FEATURES = 8
NAMES = tuple(f"f{number}" for number in range(FEATURES))
BATCH = 32
PREPARED = 64  # micro-batches made beforehand and used in turn


def stream(sensors: int, per_step: int) -> Iterator[Events]:
    """Yield micro-batches without end: a level that wanders around its mean, and noise; sensors in turn."""
    random = np.random.default_rng(0)
    level = random.normal(size=(sensors, FEATURES))
    names = [f"sensor-{number}" for number in range(sensors)]
    for start in itertools.count(0, per_step):
        number = np.arange(start, start + per_step)
        which = number % sensors
        level += random.normal(size=level.shape) * 0.05 - level * 0.01
        values = level[which] + random.normal(size=(per_step, FEATURES))
        yield Events(
            number,
            number,
            number * 1_000_000,
            [names[sensor] for sensor in which.tolist()],
            [f"e-{event_number}" for event_number in number.tolist()],
            (ValueBlock(NAMES, np.arange(per_step), values),),
        )


def half_space_trees(sensors: int, per_step: int, *, each: bool) -> Callable[[], int]:
    """Return a step of river's MinMaxScaler | HalfSpaceTrees: one model for each sensor, or one for all."""
    models = [
        compose.Pipeline(preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(seed=42))
        for _ in range(sensors if each else 1)
    ]
    made = itertools.islice(stream(sensors, per_step), PREPARED)
    events = itertools.cycle(
        [
            [
                (models[int(number) % len(models)], dict(zip(NAMES, row, strict=True)))
                for number, row in zip(batch.offsets, batch.blocks[0].values.tolist(), strict=True)
            ]
            for batch in made
        ]
    )

    def step() -> int:
        for model, x in next(events):
            model.score_one(x)
            model.learn_one(x)
        return per_step

    for _ in range(2 if len(models) == 1 else PREPARED):  # past the first window of every model
        step()
    return step


def network() -> torch.nn.Sequential:
    """Return an autoencoder of the detector's default shape for 8 features."""
    return torch.nn.Sequential(
        torch.nn.Linear(24, 24),
        torch.nn.LeakyReLU(0.1),
        torch.nn.Linear(24, 8),
        torch.nn.LeakyReLU(0.1),
        torch.nn.Linear(8, 24),
        torch.nn.LeakyReLU(0.1),
        torch.nn.Linear(24, 24),
        torch.nn.Sigmoid(),
    )


def bare_torch(sensors: int, per_step: int) -> Callable[[], int]:
    """Return a step of as many scoring passes and Adam steps of the same stacked shape, and nothing else."""
    sizes = [24, 24, 8, 24, 24]
    weights = [
        torch.nn.Parameter(torch.randn(sensors, a, b) / a**0.5 if kind else torch.zeros(sensors, 1, b))
        for a, b in itertools.pairwise(sizes)
        for kind in (True, False)
    ]
    adam = torch.optim.Adam(weights, lr=3e-3)

    def forward(x: torch.Tensor) -> torch.Tensor:
        for layer in range(4):
            x = torch.baddbmm(weights[2 * layer + 1], x, weights[2 * layer])
            x = torch.nn.functional.leaky_relu(x, 0.1) if layer < 3 else torch.sigmoid(x)
        return x

    rows = min(BATCH, per_step // sensors)
    x, learn = torch.rand(sensors, rows, 24), torch.rand(sensors, BATCH, 24)
    due = itertools.count(rows, rows)

    def step() -> int:
        done = 0
        while done < per_step:
            with torch.no_grad():
                forward(x)
            done += rows * sensors
            if next(due) % BATCH == 0:
                for _ in range(2):
                    adam.zero_grad()
                    ((forward(learn) - learn) ** 2).mean((1, 2)).sum().backward()
                    adam.step()
        return done

    return step


def loop_of_models(sensors: int) -> Callable[[], int]:
    """Return a step of a torch module and optimiser for each sensor: one event each, two Adam steps per 32 events."""
    models = [network() for _ in range(sensors)]
    adams = [torch.optim.Adam(model.parameters(), lr=3e-3) for model in models]
    x, learn = torch.rand(sensors, 1, 24), torch.rand(BATCH, 24)
    turn = itertools.count()

    def step() -> int:
        # Sensors are staggered, so that every step holds the same share of learning.
        now = next(turn)
        for number, (model, adam) in enumerate(zip(models, adams, strict=True)):
            with torch.no_grad():
                model(x[number])
            if (number + now) % BATCH == 0:
                for _ in range(2):
                    adam.zero_grad()
                    ((model(learn) - learn) ** 2).mean().backward()
                    adam.step()
        return sensors

    step()
    return step
