"""The order in which the events and the labels of a shard are processed.

The rule is that of a task in Kafka Streams: compare the heads of the two inputs by record time and take the older
one, or the label where both are equally old. Each input keeps its own order even where its record times run backwards.

``worker.input_buffer`` uses the same rule to decide how many raw records a step may take, and does not hand its result
on: rejected records (dead letters) are not in the step, a replay takes its steps without merging them, and a
shard must not depend on its caller for the order. Merging again takes less than a hundredth of the time of a step
with labels, and next to none without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray
NO_RECORD = 2**63 - 1  # later than every record


def merge_order(event_times_ms: NDArray[np.int64], label_times_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many of the labels precede each event when the two inputs are merged head against head.

    Merging a prefix of the merged order gives the same prefix, so records may be passed in pieces of any size and
    merged piece by piece.

    Args:
        event_times_ms: (N,) record times of the events, in offset order.
        label_times_ms: (K,) record times of the labels, in offset order.

    Returns:
        (N,) never falling; event ``i`` is number ``i + result[i]`` of the merged order.
    """
    if not len(label_times_ms):  # nearly always
        return np.zeros(len(event_times_ms), np.int64)
    # Label j comes before event i exactly when the newest of labels 0..j is no newer than the newest of
    # events 0..i. If so, all those labels pass while the newest of the events is the head; if not, all
    # those events pass while the newest of the labels is the head.
    newest_event = np.maximum.accumulate(event_times_ms)
    newest_label = np.maximum.accumulate(label_times_ms)
    return np.searchsorted(newest_label, newest_event, side="right").astype(np.int64, copy=False)


def record_numbers(
    event_times_ms: NDArray[np.int64], label_times_ms: NDArray[np.int64], first: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number events and labels in merged order.

    Args:
        event_times_ms: (N,) record times of the events, in offset order.
        label_times_ms: (K,) record times of the labels, in offset order.
        first: Number of the first record.

    Returns:
        (N,) numbers of the events and (K,) numbers of the labels; together ``first`` to ``first + N + K - 1``.
    """
    labels_before = merge_order(event_times_ms, label_times_ms)
    labels = np.arange(len(label_times_ms))
    events_before = np.searchsorted(labels_before, labels, side="right")
    return np.arange(len(event_times_ms)) + labels_before + first, labels + events_before + first


@kernel
def count_rounds(events: Arrays, labels: Arrays, missing: NDArray[np.int64], batch: int, out: Arrays) -> None:
    """Count the learn points of its model before each event and each label: the round that it belongs to.

    The event at which a model learns still belongs to the round that this learn point ends. A label belongs to the
    round of the event that would come next, so that a model which has just learned meets it in the next round.

    Args:
        events: (N,) models and (N,) rising record numbers.
        labels: (K,) models and (K,) rising record numbers.
        missing: (M,) events up to each model's first learn point, 1 or more; overwritten.
        batch: Events from one learn point to the next.
        out: (N,) and (K,) rounds, filled.
    """
    models, records = events
    label_models, label_records = labels
    event_round, label_round = out
    i, done = 0, np.empty_like(missing)
    for m in range(len(done)):
        done[m] = 0
    for j in range(len(label_models) + 1):
        stop = label_records[j] if j < len(label_models) else NO_RECORD
        while i < len(models) and records[i] < stop:
            m = models[i]
            event_round[i] = done[m]
            missing[m] -= 1
            if missing[m] == 0:
                missing[m], done[m] = batch, done[m] + 1
            i += 1
        if j < len(label_models):
            label_round[j] = done[label_models[j]]
