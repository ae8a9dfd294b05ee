"""Upgrade of snapshots of earlier formats to the present one.

Format 8 keeps one learn batch more of each sensor's events, and marks events with a new label in their ring buffer.
Formats 6 and 7 had a separate queue for these, which could overflow. Format 8 also keeps, for a label whose event is
not in memory, how many events its sensor had before it. Format 9 keeps the evidence of alarms; there is none yet in a
snapshot of an earlier format, so that its sensors alarm again after as many events as in the warm-up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.feedback.event_buffer import DROPPED, FLAGGED, UNLABELLED
from stream_ad.detector.row_store import NonsenseError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.config import LearningConfig

UPGRADABLE = (6, 7)
_EVENT_FILLS = {"ids": 0, "times": 0, "log_score": 0, "flagged": False, "label": UNLABELLED, "source": 0}
_EVENT_FILLS |= {"learned": DROPPED, "queued": False}
_RENAMED = {  # arrays of a detector
    "coupling.judged": "coupling.residual_count",
    "coupling.sharpness": "coupling.inv_std",
    "head.place": "head.side_row",
    "pending.memory": "pending.ewma_checkpoints",
    "pending.last_place": "pending.last_labelled",
    "pending.last_verdict": "pending.last_label",
    "pending.verdict": "pending.label",
    "replay.middle": "replay.center",
    "replay.slope": "replay.scale",
    "scaler.middle": "scaler.center",
    "scaler.slope": "scaler.scale",
    "scoring.sharpness": "scoring.inv_std",
}


def present_names(header: Any) -> Any:
    """Return the plain part of a snapshot of format 6 or 7 with the present names; values are not checked."""
    if isinstance(header, dict) and isinstance(verdicts := header.pop("verdicts", None), dict):
        header["label_store"] = verdicts
        if "judged" in verdicts:
            verdicts["label_results"] = verdicts.pop("judged")
    return header


def upgrade(header: dict[str, Any], arrays: dict[str, NDArray[Any]], learning: LearningConfig) -> None:
    """Convert header and arrays of format 6 or 7 to the present format, in place.

    1. Rename arrays.
    2. Lengthen the ring buffers, and find the first marked event of each sensor.
    3. Add to each waiting label the events that its sensor has had.

    Args:
        header: Plain values; see ``snapshot_format.EarlierHeader``.
        arrays: Arrays by name, with axes (S, W, ...) for rings of S sensors.
        learning: Settings that decide the length of the rings.

    Raises:
        NonsenseError: They do not have that format.
    """
    for name in list(arrays):
        group, _, own = name.partition(".")
        if own in _RENAMED:
            arrays[f"{group}.{_RENAMED[own]}"] = arrays.pop(name)
    sensor_ids = header["sensors"]["ids"]
    events: dict[str, int] = {}
    for number, owners in enumerate(header["sensors"]["owners"]):
        count = _array(arrays, f"g{number}.pending.count", 1)
        if len(count) != len(owners) or max(owners, default=0) >= len(sensor_ids):
            raise NonsenseError(f"detector {number} has {len(count)} rows for {len(owners)} sensors")
        events.update((sensor_ids[owner], int(count[row])) for row, owner in enumerate(owners))
        _upgrade_rings(f"g{number}.", arrays, learning)
    for incident in header["incidents"].values():
        incident |= {"kind": 1, "severity": 0, "peak_alarm": incident["peak"], "contributions": [], "classes": []}
        del incident["features"]
    early = header["label_store"]["early"]
    for sensor_id, labels in early.items():
        early[sensor_id] = [(*label, events.get(sensor_id, 0)) for label in labels]


def _upgrade_rings(prefix: str, arrays: dict[str, NDArray[Any]], learning: LearningConfig) -> None:
    block, pending = learning.batch_events, prefix + "pending."
    count, capacity = arrays[pending + "count"], learning.label_reach_events + learning.batch_events
    if (count < 0).any():
        raise NonsenseError(f"{pending}count is negative")
    fills: dict[str, Any] = {pending + name: fill for name, fill in _EVENT_FILLS.items()}
    for name, fill in fills.items():
        arrays[name] = _longer(_array(arrays, name, 2), count, capacity, fill)
    arrays[pending + "marks"] = arrays.pop(pending + "flagged").astype(np.uint8) * FLAGGED
    order = _array(arrays, pending + "order", 2)
    if order.shape[1] > block:
        arrays[pending + "order"] = _longer(order, count, capacity, 0)
    arrays[pending + "readings"] = _longer(_array(arrays, pending + "readings", 3), count, capacity + block, np.nan)
    blocks = -(-count // block)
    arrays[pending + "ewma_checkpoints"] = _longer(
        _array(arrays, pending + "ewma_checkpoints", 4), blocks, capacity // block + 1, np.nan
    )
    side_row, added = _array(arrays, prefix + "head.side_row", 1), _array(arrays, prefix + "head.rings.added", 2)
    owners = np.flatnonzero(side_row >= 0)
    if len(side_row) != len(count) or not np.array_equal(np.sort(side_row[owners]), np.arange(len(added))):
        raise NonsenseError(f"{prefix}head: {len(owners)} sensors for {len(added)} rings")
    ring_count = np.zeros(len(owners), np.int64)
    ring_count[side_row[owners]] = count[owners]
    arrays[prefix + "head.rings.added"] = _longer(added, ring_count, capacity, 0)
    for name in ("queue", "queue_head", "queue_tail"):
        arrays.pop(pending + name, None)
    arrays[pending + "queued_from"] = _first_queued(arrays[pending + "queued"], count)


def _array(arrays: dict[str, NDArray[Any]], name: str, axes: int) -> NDArray[Any]:
    array = arrays.get(name)
    if array is None or array.ndim != axes:
        raise NonsenseError(f"{name}: expected {axes} axes, found {'nothing' if array is None else array.shape}")
    return array


def _longer(ring: NDArray[Any], count: NDArray[np.int64], length: int, fill: Any) -> NDArray[Any]:
    """Return rings (S, W, ...) as longer ones (S, length, ...): entry n moves from n modulo W to n modulo length."""
    width = ring.shape[1]
    if not 0 < width <= length or len(ring) != len(count):
        raise NonsenseError(f"rings of shape {ring.shape} for {len(count)} sensors of {length} entries")
    longer = np.full((len(ring), length, *ring.shape[2:]), fill, ring.dtype)
    for row, last in enumerate(count.tolist()):
        entries = np.arange(max(0, last - width), last)
        longer[row, entries % length] = ring[row, entries % width]
    return longer


def _first_queued(queued: NDArray[np.bool_], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (S,) the number of the first marked event of each ring (S, C), or of the next event where none is."""
    first = count.copy()
    for row, last in enumerate(count.tolist()):
        entries = np.arange(max(0, last - queued.shape[1]), last)
        marked = entries[queued[row, entries % queued.shape[1]]]
        if len(marked):
            first[row] = marked[0]
    return first
