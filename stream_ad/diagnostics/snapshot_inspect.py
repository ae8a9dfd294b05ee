"""Describe a snapshot for people: sensors, classes, and how good the model was according to the labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.brokers.snapshot_retention import no_such_snapshot
from stream_ad.detector.row_store import NonsenseError
from stream_ad.errors import DamagedStateError, StateError
from stream_ad.shard.label_store import NORMAL_NAME
from stream_ad.shard.snapshot_format import fingerprint, metadata, read_header, require_format

if TYPE_CHECKING:
    from stream_ad.brokers.tools_api import Snapshots
    from stream_ad.brokers.worker_api import KeptSnapshot
    from stream_ad.detector.config import DetectorOptions


@dataclass(frozen=True, slots=True)
class ClassStatistics:
    """What labels have said about one class. Counts and shares decay with further labels."""

    labels: float
    """Decayed number of labels on events that were scored live."""
    missed: float | None
    """Decayed share on the wrong side of the threshold: "normal" above it, others below. None without labels."""
    weight: float
    """Weight of the class in the loss."""


@dataclass(frozen=True, slots=True)
class SnapshotView:
    """A snapshot as `stream-ad snapshots` shows it."""

    shard: int
    number: int
    saved: str | None
    """RFC 3339; None where the database is too old to record it."""
    events: int
    """The next offset to read, of events and of labels."""
    labels: int
    size_bytes: int
    in_use: bool
    """Whether the next start of a worker resumes from it."""
    lineage_reason: str
    problem: str
    """Why it cannot be used, or ""."""
    foreign: bool = False
    """Whether another version of the program wrote it; a worker then refuses to start from any other in its place."""
    records: int = 0
    """Events and labels that the shard had read."""
    watermark: str | None = None
    sensors: int = 0
    features: tuple[int, ...] = ()
    """Number of features of each group of sensors with the same features."""
    open_incidents: int = 0
    classes: dict[str, ClassStatistics] = field(default_factory=dict)
    """By name of the class: anomaly classes and "normal"."""
    program: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints; the reason of the lineage is called ``origin`` there."""
        return {"origin" if name == "lineage_reason" else name: value for name, value in asdict(self).items()}

    @property
    def missed_normal(self) -> float | None:
        """Return the decayed share of the labels "normal" given to events above the threshold; None without any."""
        normal = self.classes.get(NORMAL_NAME)
        return None if normal is None else normal.missed


def views(snapshots: Snapshots, shard: int, options: DetectorOptions) -> list[SnapshotView]:
    """Return all snapshots of a shard, the newest first."""
    kept = snapshots.kept(shard)
    return [view(snapshots, shard, snapshot, options, newest=snapshot is kept[0]) for snapshot in kept]


def one_view(snapshots: Snapshots, shard: int, number: int, options: DetectorOptions) -> SnapshotView:
    """Return one snapshot.

    Raises:
        StateError: There is no snapshot of this number.
    """
    kept = snapshots.kept(shard)
    for snapshot in kept:
        if snapshot.number == number:
            return view(snapshots, shard, snapshot, options, newest=snapshot is kept[0])
    raise no_such_snapshot(shard, number, kept)


def view(
    snapshots: Snapshots, shard: int, kept: KeptSnapshot, options: DetectorOptions, *, newest: bool
) -> SnapshotView:
    """Read a snapshot; what is wrong with it is its ``problem``, not an exception."""
    stored: dict[str, Any] = {
        "shard": shard,
        "number": kept.number,
        "saved": _time(kept.saved_ms / 1e3) if kept.saved_ms else None,
        "events": kept.positions.events,
        "labels": kept.positions.labels,
        "size_bytes": kept.size_bytes,
        "in_use": newest,
        "lineage_reason": kept.lineage_reason,
    }
    try:
        meta = metadata(snapshots.read(shard, kept.number))
        version = require_format(meta)
        header = read_header(meta)
    except StateError as error:
        return SnapshotView(
            **stored, problem=error.what.removesuffix("."), foreign=not isinstance(error, DamagedStateError)
        )
    except NonsenseError as error:
        return SnapshotView(**stored, problem=f"its header cannot be read: {error}")
    fits = meta.get("fingerprint") == fingerprint(options, version)
    label_store, sensors = header["label_store"], header["sensors"]
    return SnapshotView(
        **stored,
        problem="" if fits else "does not fit the settings",
        records=header["records"],
        watermark=_time(header["watermark_ns"] / 1e9) if header["watermark_ns"] > 0 else None,
        sensors=len(sensors["ids"]),
        features=_set_sizes(sensors),
        open_incidents=len(header["incidents"]),
        classes={
            name: _class(labels, misses, weight)
            for name, labels, misses, weight in zip(
                *(label_store[part] for part in ("classes", "labels", "misses", "weights")), strict=True
            )
        },
        program=meta.get("program", ""),
    )


def _set_sizes(sensors: dict[str, Any]) -> tuple[int, ...]:
    """Return the size of each set of features that a sensor has, those of evicted sensors last."""
    used = [tuple(names) for names, owners in zip(sensors["features"], sensors["owners"], strict=True) if owners]
    resting = [tuple(names) for names in sensors["resting"].get("features", ())]
    return tuple(map(len, dict.fromkeys(used + resting)))


def _class(labels: float, misses: float, weight: float) -> ClassStatistics:
    missed = float(np.clip(misses / labels, 0, 1)) if labels > 1e-9 else None  # fully decayed counts say nothing
    return ClassStatistics(round(labels, 3), missed, round(weight, 3))


def _time(seconds: float) -> str | None:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat("T", "seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):  # beyond the years of the calendar
        return None
