"""What a snapshot knows, for people: sensors, classes, and how good the model was by the verdicts."""

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
class ClassKnown:
    """What the model has been told about one class. Counts and shares fade with further labels."""

    labels: float
    """Decayed number of verdicts on events that were scored live."""
    missed: float | None
    """Decayed share of them that the published score had wrong; of «normal»: false alarms. None without labels."""
    weight: float
    """In the loss."""


@dataclass(frozen=True, slots=True)
class SnapshotView:
    """One snapshot."""

    shard: int
    number: int
    saved: str | None
    """RFC 3339; None where nobody has written it down."""
    events: int
    """The next offset to read."""
    labels: int
    size_bytes: int
    in_use: bool
    """The next start of a worker begins with it."""
    origin: str
    problem: str
    """Why it cannot be used; "" when it can."""
    foreign: bool = False
    """Another version of the program wrote it: a worker refuses to begin with anything else in its place."""
    records: int = 0
    """Events and labels that it has seen."""
    watermark: str | None = None
    sensors: int = 0
    features: tuple[int, ...] = ()
    """Of each group of sensors that have the same."""
    open_incidents: int = 0
    classes: dict[str, ClassKnown] = field(default_factory=dict)
    """Anomaly classes and «normal»."""
    program: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def false_alarms(self) -> float | None:
        """Decayed share of «normal» verdicts on what had been published as anomaly; None without any."""
        normal = self.classes.get(NORMAL_NAME)
        return None if normal is None else normal.missed


def views(snapshots: Snapshots, shard: int, options: DetectorOptions) -> list[SnapshotView]:
    """All snapshots of a shard, the newest first."""
    return [view(snapshots, shard, one, options, newest=place == 0) for place, one in enumerate(snapshots.kept(shard))]


def one_view(snapshots: Snapshots, shard: int, number: int, options: DetectorOptions) -> SnapshotView:
    """One snapshot; StateError where there is none of this number."""
    kept = snapshots.kept(shard)
    for one in kept:
        if one.number == number:
            return view(snapshots, shard, one, options, newest=one is kept[0])
    raise no_such_snapshot(shard, number, kept)


def view(
    snapshots: Snapshots, shard: int, kept: KeptSnapshot, options: DetectorOptions, *, newest: bool
) -> SnapshotView:
    """One of them; what is wrong with it stands in it."""
    told: dict[str, Any] = {
        "shard": shard,
        "number": kept.number,
        "saved": _time(kept.saved_ms / 1e3) if kept.saved_ms else None,
        "events": kept.positions.events,
        "labels": kept.positions.labels,
        "size_bytes": kept.size_bytes,
        "in_use": newest,
        "origin": kept.lineage_reason,
    }
    try:
        meta = metadata(snapshots.read(shard, kept.number))
        version = require_format(meta)
        header = read_header(meta)
    except StateError as error:
        return SnapshotView(
            **told, problem=error.what.removesuffix("."), foreign=not isinstance(error, DamagedStateError)
        )
    except NonsenseError as error:
        return SnapshotView(**told, problem=f"its header cannot be read: {error}")
    fits = meta.get("fingerprint") == fingerprint(options, version)
    label_store, sensors = header["label_store"], header["sensors"]
    return SnapshotView(
        **told,
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
    """Features of each set of features that a sensor has, those of sensors at rest last."""
    used = [tuple(names) for names, owners in zip(sensors["features"], sensors["owners"], strict=True) if owners]
    resting = [tuple(names) for names in sensors["resting"].get("features", ())]
    return tuple(map(len, dict.fromkeys(used + resting)))


def _class(labels: float, misses: float, weight: float) -> ClassKnown:
    known = labels > 1e-9
    return ClassKnown(round(labels, 3), float(np.clip(misses / labels, 0, 1)) if known else None, round(weight, 3))


def _time(seconds: float) -> str | None:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat("T", "seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):  # a year that no calendar has
        return None
