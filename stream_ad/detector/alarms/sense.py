"""Check that the alarm state of a snapshot is one that sensors can have: kernels trust it, and index arrays by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.alarms.acceptance import CALM
from stream_ad.detector.alarms.excursions import JUDGED, NEVER, UNSEEN
from stream_ad.detector.alarms.levels import ROW_BINS
from stream_ad.detector.row_store import NonsenseError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.row_store import SensorTable
    from stream_ad.detector.sensor_state import SensorState

LARGEST = 1e12  # beyond every count, and every sum of nats
SIZES = {  # columns of counts and of nats
    "evidence": (
        *("counts", "totals", "tops", "events", "evidence", "top", "peak"),
        *("label_delay", "labels", "far_run", "usual_run", "beyond", "pending_length"),
    ),
    "repeats": ("longest", "moves", "repeat", "steps"),
    "acceptance": ("share", "longest"),
}
COUNTED = {  # columns that are numbers of events, with the least that they can be
    "evidence": {"learned": 0, "refreshed": 0, "began": 0, "start": NEVER, "first": NEVER, "last": NEVER}
    | {"peak_event": NEVER},
    "acceptance": {"since": CALM},
}


def require_sense(name: str, state: SensorState) -> None:
    """Check the evidence, repeats and unrest of all sensors of a detector.

    Args:
        name: Of the detector, for the error.
        state: The detector.

    Raises:
        NonsenseError: A value is impossible.
    """
    used, tables = slice(state.size), state.parts()
    count = state.pending.count[used]
    for part, columns in SIZES.items():
        for column in columns:
            values = _used(tables[f"{part}."], column)
            if not ((values >= 0) & (values <= LARGEST)).all():  # nor where it is no number
                raise NonsenseError(f"{name} has impossible {part}.{column}")
    for part, least in COUNTED.items():
        for column, lowest in least.items():
            values = _used(tables[f"{part}."], column)
            if ((values < lowest) | (values > count.reshape(-1, *[1] * (values.ndim - 1)))).any():
                raise NonsenseError(f"{name} has {part}.{column} of events that cannot exist")
    evidence = state.evidence
    codes, tops, endings = evidence.codes[used], evidence.pending_top[used], evidence.ending[used]
    if ((codes >= ROW_BINS) & (codes != UNSEEN)).any():
        raise NonsenseError(f"{name} has codes of bins that do not exist")
    if not np.isfinite(tops).all() or np.isnan(evidence.levels[used]).any():
        raise NonsenseError(f"{name} has excursions or levels that are no numbers")
    if ((endings < 0) | (endings > JUDGED)).any():
        raise NonsenseError(f"{name} has incidents that end for no known reason")


def _used(table: SensorTable, column: str) -> NDArray[Any]:
    values: NDArray[Any] = getattr(table, column)[: table.size]
    return values
