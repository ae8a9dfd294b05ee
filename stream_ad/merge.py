"""The order in which the events and the labels of a shard are processed.

The rule of Kafka Streams' tasks: compare the heads of the two inputs by record time, take the older
one, the label where both are equally old. Each input keeps its own order even where its record times
run backwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
    # Label j comes before event i exactly when the newest of labels 0..j is no newer than the newest of
    # events 0..i. If so, all those labels pass while the newest of the events is the head; if not, all
    # those events pass while the newest of the labels is the head.
    newest_event = np.maximum.accumulate(event_times_ms)
    newest_label = np.maximum.accumulate(label_times_ms)
    return np.searchsorted(newest_label, newest_event, side="right").astype(np.int64, copy=False)
