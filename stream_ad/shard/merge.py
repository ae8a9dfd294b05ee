"""The order in which the events and the labels of a shard are processed.

The rule of Kafka Streams' tasks: compare the heads of the two inputs by record time, take the older
one, the label where both are equally old. Each input keeps its own order even where its record times
run backwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray
NO_RECORD = 2**63 - 1  # is behind all there are


def merge_order(event_times_ms: NDArray[np.int64], label_times_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the labels come before each event when the two inputs are merged head against head.

    The merge of a prefix of the merged order is the prefix of the merge, so records may be handed
    over in pieces of any size and merged piece by piece.

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


@kernel
def count_rounds(events: Arrays, labels: Arrays, missing: NDArray[np.int64], batch: int, out: Arrays) -> None:
    """How many learn points of its model come before each event and each label.

    An event belongs to the round that its model's learn point ends; a label to that of the events
    that came before it, so that a model which has just learned meets it in the next.

    Args:
        events: (N,) models, (N,) rising records.
        labels: (K,) models, (K,) rising records.
        missing: (M,) events up to each model's first learn point, 1 or more; used up.
        batch: Events from one learn point to the next.
        out: (N,), (K,) rounds, to be filled.
    """
    models, records = events
    label_models, label_records = labels
    round_of, label_round = out
    at, done = 0, np.empty_like(missing)
    for m in range(len(done)):
        done[m] = 0
    for j in range(len(label_models) + 1):
        stop = label_records[j] if j < len(label_models) else NO_RECORD
        while at < len(models) and records[at] < stop:
            m = models[at]
            round_of[at] = done[m]
            missing[m] -= 1
            if missing[m] == 0:
                missing[m], done[m] = batch, done[m] + 1
            at += 1
        if j < len(label_models):
            label_round[j] = done[label_models[j]]
