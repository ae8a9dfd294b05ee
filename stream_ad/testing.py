"""Helpers for your own tests: seeded streams, a broker in memory, a clock that you advance by hand.

Everything in this module is deterministic and needs no server, no file and no waiting. A broker in memory, fed with
a small plant:

>>> from stream_ad.settings import Settings
>>> from stream_ad.testing import ManualClock, MemoryBroker, plant_stream
>>> settings = Settings.model_validate({"topics": {"partitions": 2}})
>>> memory = MemoryBroker(clock=ManualClock())
>>> stream = plant_stream(machines=2, steps=300)
>>> stream.send(memory.producer(settings))
>>> len(memory.records(settings.topics.events))
600

Faults are injected in advance: after ``memory.fail("commit_after")`` the next commit is written but its answer is
lost. Whether a worker recovers is then a plain assertion on ``memory.records(settings.topics.scores)``.

The truth about the stream is known, for tests of how well the detector finds it:

>>> sorted(set(plant_stream(machines=4, steps=2000).faults) - {None})
['bearing-wear', 'drifting-sensor', 'leak', 'overload', 'power-dip', 'stuck-sensor']
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_ad.brokers.memory.broker import MemoryBroker
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.evaluation.simulation.annotator import AnnotatorConfig
from stream_ad.evaluation.simulation.plant import CLEANING, FEATURES, PlantConfig
from stream_ad.evaluation.simulation.simulate import Simulation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stream_ad.brokers.tools_api import Producer
    from stream_ad.evaluation.simulation.simulate import Tick
    from stream_ad.records.columns import Events, Labels

__all__ = ["ManualClock", "MemoryBroker", "PlantStream", "plant_stream"]


class ManualClock:
    """A clock that advances only when told to; call it for the time in seconds.

    >>> clock = ManualClock(100.0)
    >>> clock.advance(2.5)
    >>> clock()
    102.5
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Advance the clock.

        Raises:
            ValueError: The seconds are negative; a clock cannot go back.
        """
        if seconds < 0:
            raise ValueError(f"a clock cannot go back ({seconds} s)")
        self._now += seconds


@dataclass(frozen=True, slots=True, eq=False)
class PlantStream:
    """Readings of a small simulated plant, their labels, and the truth. N events, F features."""

    events: Events
    labels: Labels
    features: tuple[str, ...]
    faults: tuple[str | None, ...]
    """(N,) name of the fault, or None. Cleaning is not a fault: unusual, but harmless."""
    broken: NDArray[np.bool_]
    """(N, F) whether the fault acts on the feature."""
    tick: Tick
    """The same stream as records for the topics."""

    def send(self, producer: Producer) -> None:
        """Write the whole stream into the topics; a worker started afterwards reads it in one definite order."""
        producer.send(InputTopic.EVENTS, self.tick.event_records())
        producer.send(InputTopic.LABELS, self.tick.label_records())
        producer.flush()


def plant_stream(
    *,
    machines: int = 3,
    steps: int = 1000,
    seed: int = 0,
    plant: PlantConfig | None = None,
    annotator: AnnotatorConfig | None = None,
    verdicts: AnnotatorConfig | None = None,
) -> PlantStream:
    """Return a seeded stream of ``machines * steps`` events; the same arguments give the same stream.

    Args:
        machines: Number of machines, which are sensors.
        steps: Readings of each machine, a minute apart.
        seed: Seed of the plant.
        plant: All settings of the plant, in place of ``machines`` and ``seed``.
        annotator: Who labels what, and when; by default half an hour late, and mostly what is unusual.
        verdicts: Old name of ``annotator``, until version 1.0.
    """
    if verdicts is not None:
        message = "verdicts is now annotator; the old name will go with version 1.0"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        annotator = verdicts
    config = plant or PlantConfig(
        machines=machines, seed=seed, interval_s=60.0, healthy_s=3600.0, fault_every_s=2 * 3600.0
    )
    simulation = Simulation(config, annotator or AnnotatorConfig(), name="plant")
    tick = simulation.step(steps)
    kinds = [None if episode.kind == CLEANING else episode.kind for episode in simulation.plant.episodes]
    return PlantStream(
        events=tick.events(),
        labels=tick.labels(),
        features=FEATURES,
        faults=tuple(kinds[index] if index >= 0 else None for index in tick.chunk.episode.tolist()),
        broken=simulation.plant.broken(tick.chunk),
        tick=tick,
    )
