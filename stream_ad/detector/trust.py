"""Which verdicts to doubt: people click on the wrong row, and a wrong verdict learned costs more than one not learned.

On a stream with memory, events stand in episodes and so do verdicts. A verdict that most verdicts around
it contradict is doubted, but only where the score contradicts it, too: a quick anomaly that the score saw, or a
calm event inside a labelled fault, keeps its verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.compiled import Arrays, kernel
from stream_ad.detector.pending import NORMAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.pending import Pending

NEIGHBOURS = 8  # events to each side
LEAST = 2  # verdicts among them, without which nothing is doubted
MOST_AROUND_NORMAL = 0.6  # share of anomalies around an event labelled normal, above which it is doubted
LEAST_AROUND_ANOMALY = 0.25  # share of anomalies around a labelled anomaly, below which it is doubted


def doubtful(
    pending: Pending, rows: NDArray[np.int64], places: NDArray[np.int64], high: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """(A, B) verdicts that both their neighbours and the score contradict.

    Args:
        pending: Holds the verdicts.
        rows: (A,) different sensors, whose events have memory.
        places: (A, B) numbers of events.
        high: (A, B) which of them scored above nearly all events labelled normal.
    """
    out = np.zeros(places.shape, np.bool_)
    _doubt(rows, places, high, (pending.count, pending.verdict), out)
    return out


@kernel
def _doubt(
    rows: NDArray[np.int64],
    places: NDArray[np.int64],
    high: NDArray[np.bool_],
    figures: Arrays,
    out: NDArray[np.bool_],
) -> None:
    count, verdicts = figures
    capacity = verdicts.shape[1]
    for a in range(len(rows)):
        s = rows[a]
        first, stop = max(0, count[s] - capacity), count[s]
        for b in range(places.shape[1]):
            place = places[a, b]
            verdict = verdicts[s, place % capacity]
            if verdict < NORMAL or (verdict > NORMAL) == high[a, b]:
                continue
            anomalies, known = 0, 0
            for other in range(max(first, place - NEIGHBOURS), min(stop, place + NEIGHBOURS + 1)):
                said = verdicts[s, other % capacity]
                if other != place and said >= NORMAL:
                    known += 1
                    anomalies += said > NORMAL
            share = (anomalies + 0.5) / (known + 1)
            if known >= LEAST:
                out[a, b] = share > MOST_AROUND_NORMAL if verdict == NORMAL else share < LEAST_AROUND_ANOMALY
