"""The format of snapshots: safetensors for the arrays and a JSON header for the rest; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
from crc32c import crc32c
from safetensors import SafetensorError
from safetensors.numpy import load

from stream_ad import __version__
from stream_ad.detector.row_store import NonsenseError
from stream_ad.errors import DamagedStateError, StateError, UnfitStateError
from stream_ad.records.schemas import MAX_EVENT_ID, MAX_NAME
from stream_ad.shard.label_store import NORMAL_NAME
from stream_ad.shard.snapshot_upgrade import UPGRADABLE, present_names, upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from stream_ad.detector.config import DetectorOptions

FORMAT = 9
UNCHECKED = 6  # this format has no checksum
KEY = "stream_ad"  # of our fields in the metadata of safetensors
OTHERS = "`stream-ad snapshots list` shows the others; `stream-ad snapshots reset` starts with a new model."

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Hash = Annotated[int, msgspec.Meta(ge=0)]  # below 2**64, a bound that msgspec cannot state
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
EventId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_EVENT_ID)]


class RestingHeader(msgspec.Struct, frozen=True, omit_defaults=True):
    """See ``Resting.state``."""

    numbers: list[Count] = []
    features: list[list[str]] = []
    features_of: list[Count] = []
    events: list[Count] = []
    columns: list[str] = []


class SensorsHeader(msgspec.Struct, frozen=True):
    """See ``SensorRegistry.state``."""

    ids: list[str]
    features: list[list[str]]
    owners: list[list[Count]]
    arrived: list[Count]
    evicted: Count
    resting: RestingHeader = RestingHeader()


class LabelStoreHeader(msgspec.Struct, frozen=True):
    """See ``LabelStore.state``."""

    classes: list[str]
    labels: list[float]
    misses: list[float]
    average: list[float]
    weights: list[float]
    early: dict[str, list[tuple[Hash, Count, Count, Count]]]
    intervals: dict[str, list[tuple[Whole, Whole, Count, Count]]]
    fresh_intervals: list[str]
    label_results: list[tuple[Count, Count, Count, bool]]


class IncidentHeader(msgspec.Struct, frozen=True):
    """See ``Incidents.state``; what is kept must fit ``schemas.Incident``, or the incident could never be closed."""

    first_event: EventId
    start_ns: Whole
    end_ns: Whole
    events: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    kind: Annotated[int, msgspec.Meta(ge=0, le=3)]
    severity: Annotated[int, msgspec.Meta(ge=0, le=2)]
    peak_alarm: Annotated[float, msgspec.Meta(ge=0)]
    peak: float
    peak_event: EventId
    contributions: list[tuple[str, float, float, Annotated[float, msgspec.Meta(ge=0, le=1)]]]
    classes: list[tuple[Name, Annotated[float, msgspec.Meta(ge=0, le=1)]]]
    quiet: Count
    labelled: bool = False


class EarlierIncidentHeader(msgspec.Struct, frozen=True):
    """An open incident in formats 6 and 7."""

    first_event: EventId
    start_ns: Whole
    end_ns: Whole
    events: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    peak: float
    peak_event: EventId
    features: list[str]
    quiet: Count


class Header(msgspec.Struct, frozen=True):
    """The plain part of a snapshot in the present format."""

    records: Count
    watermark_ns: Whole
    sensors: SensorsHeader
    label_store: LabelStoreHeader
    incidents: dict[Name, IncidentHeader]
    unlabelled_incidents: dict[Name, list[tuple[Whole, Whole]]] = {}


class EarlierLabelStoreHeader(LabelStoreHeader, frozen=True):
    """The label store in formats 6 and 7, under the present names."""

    early: dict[str, list[tuple[Hash, Count, Count]]]  # type: ignore[assignment]


class EarlierHeader(Header, frozen=True):
    """The plain part of a snapshot in formats 6 and 7, under the present names."""

    label_store: EarlierLabelStoreHeader
    incidents: dict[Name, EarlierIncidentHeader]  # type: ignore[assignment]


class _Outer(msgspec.Struct, frozen=True):
    meta: dict[str, str] = msgspec.field(name="__metadata__")


def fingerprint(options: DetectorOptions, version: int = FORMAT) -> str:
    """Return a digest of the settings that decide the shape of the state: snapshots fit shards with the same digest."""
    learning = options.learning
    shape = {
        "format": version,
        "models": options.detector.models,
        "seed": options.detector.seed,
        "batch_events": learning.batch_events,
        "label_horizon_events": learning.label_horizon_events,
        "warmup_events": learning.warmup_events,
        "replay_events": learning.replay_events,
        "window_events": options.threshold.window_events,
    }
    return f"{version}-{hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:10]}"


def dump(options: DetectorOptions, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> bytes:
    """Return a snapshot that ``parse`` reads; the same state gives the same bytes.

    Args:
        options: Settings of the detector.
        header: Plain values; see ``Header``.
        arrays: Arrays by name, nearly all of them (S, ...) for the S rows of a detector.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(header, sort_keys=True)
    meta = {
        "format": str(FORMAT),
        "program": __version__,
        "fingerprint": fingerprint(options),
        "checksum": str(_checksum(text, arrays)),
        "header": text,
    }
    return _joined(arrays, {KEY: json.dumps(meta)})


def _joined(arrays: Mapping[str, NDArray[Any]], meta: dict[str, str]) -> bytes:
    """Return what ``safetensors.numpy.save`` returns, in a tenth of its time: every array is copied only once."""
    outer: dict[str, Any] = {"__metadata__": meta}
    in_order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))  # so that every array is aligned
    at = 0
    for name in in_order:
        array = arrays[name]
        kind = "BOOL" if array.dtype.kind == "b" else f"{array.dtype.kind.upper()}{8 * array.itemsize}"
        outer[name] = {"dtype": kind, "shape": array.shape, "data_offsets": (at, at + array.nbytes)}
        at += array.nbytes
    text = json.dumps(outer, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(arrays[name].data for name in in_order)])


def _checksum(header: str, arrays: dict[str, NDArray[Any]]) -> int:
    """Return a CRC32C of header and arrays, which detects damage on the way to a broker and back.

    Brokers check a cryptographic digest of what they store; computing one here would delay scores for longer than
    everything else about a snapshot.
    """
    value: int = crc32c(header.encode())
    for name in sorted(arrays):
        array = arrays[name]
        value = crc32c(f"{name} {array.dtype} {array.shape}".encode(), value)
        value = crc32c(array.data if array.size else b"", value)
    return value


def parse(data: bytes, options: DetectorOptions) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the header and the arrays of a snapshot, upgraded to the present format.

    1. Check the format and the fingerprint of the settings.
    2. Read the arrays, and check them and the header against the checksum.
    3. Check the header against its format (``Header``).
    4. Upgrade an earlier format.

    Args:
        data: The snapshot.
        options: Settings that it must fit.

    Returns:
        Plain values, and arrays by name, nearly all of them (S, ...) for the S rows of a detector.

    Raises:
        StateError: The program does not know its format.
        UnfitStateError: It was made with settings that give models of another shape.
        DamagedStateError: Anything else is wrong with it.
    """
    meta = metadata(data)
    version = require_format(meta)
    if meta.get("fingerprint") != fingerprint(options, version):
        raise UnfitStateError(
            "The snapshot was made with other settings for the shape of the state (detector.models, detector.seed, "
            "learning.batch_events, label_horizon_events, warmup_events, replay_events or threshold.window_events).",
            hint="Restore the earlier settings, then run `stream-ad snapshots restore` to continue from it.",
        )
    with damaged_by(SafetensorError, ValueError, KeyError, OverflowError):  # the last ones: impossible types and sizes
        arrays = load(data)
    with damaged_by(NonsenseError):
        text = header_text(meta)
        if version != UNCHECKED and str(_checksum(text, arrays)) != meta.get("checksum"):
            raise NonsenseError("its checksum does not match its content")
        _require_models(arrays)
        header = read_header(meta)
        if version in UPGRADABLE:
            upgrade(header, arrays, options.learning)
        return header, arrays


@contextmanager
def damaged_by(*kinds: type[Exception]) -> Iterator[None]:
    """Raise errors of these kinds, which show that a snapshot is wrong, as DamagedStateError.

    Other errors, such as lack of memory or a defect of the program, say nothing about the snapshot: to treat them as
    damage would discard a good model.
    """
    try:
        yield
    except kinds as error:
        raise DamagedStateError(
            f"The snapshot cannot be used: {error or type(error).__name__}.", hint=OTHERS
        ) from error


def require_format(meta: Mapping[str, str]) -> int:
    """Return the format of a snapshot by its ``metadata``; refuse an unknown one, which must never be misread."""
    for version in (FORMAT, *UPGRADABLE):
        if meta.get("format") == str(version):
            return version
    raise StateError(
        f"The snapshot has format {meta.get('format')!r}; this program reads format {FORMAT}.",
        hint=f"Run the version of the program that wrote it, {meta.get('program', 'unknown')}, or start with a new "
        "model: `stream-ad snapshots reset`.",
    )


def header_text(meta: Mapping[str, str]) -> str:
    """Return the text of the header in what ``metadata`` returned.

    Raises:
        NonsenseError: There is none.
    """
    if (text := meta.get("header")) is None:
        raise NonsenseError("there is no header")
    return text


def read_header(meta: Mapping[str, str]) -> dict[str, Any]:
    """Return the plain part of the state in what ``metadata`` returned, checked.

    Raises:
        NonsenseError: It does not have its format, or its values contradict one another.
    """
    try:
        if meta["format"] == str(FORMAT):
            header = msgspec.convert(json.loads(header_text(meta)), Header)
        else:
            header = msgspec.convert(present_names(json.loads(header_text(meta))), EarlierHeader)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NonsenseError(f"header: {error}") from error
    label_store, sensors = header.label_store, header.sensors
    classes = len(label_store.classes)
    tables = (label_store.labels, label_store.misses, label_store.average, label_store.weights)
    early = [label for labels in label_store.early.values() for label in labels]
    used_classes = [label[1] for label in early]
    used_classes += [interval[2] for intervals in label_store.intervals.values() for interval in intervals]
    used_classes += [result[2] for result in label_store.label_results]
    if any(len(table) != classes or not np.isfinite(table).all() for table in tables):
        raise NonsenseError("header: the tables of the classes do not match")
    if label_store.classes[:1] != [NORMAL_NAME] or max(used_classes, default=0) >= classes:
        raise NonsenseError("header: a label of a class that does not exist")
    if max((label[0] for label in early), default=0) >= 2**64:
        raise NonsenseError("header: a label of an event whose hash is too large")
    if sum(map(len, sensors.owners)) + len(sensors.resting.numbers) != len(sensors.ids):
        raise NonsenseError("header: the sensors do not match their rows")
    result: dict[str, Any] = msgspec.to_builtins(header)
    return result


def _require_models(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse weights that are not finite, and incomplete models: they would fail later, or score nonsense for ever."""
    lengths: dict[str, int] = {}
    for name, array in arrays.items():
        group, model, _ = name.partition(".model.")
        if not model:
            continue
        if not np.isfinite(array).all() or (array.dtype.kind == "i" and (array < 0).any()):
            raise NonsenseError(f"{name} has impossible values")
        if array.ndim == 0 or lengths.setdefault(group, len(array)) != len(array):
            raise NonsenseError(f"{group}.model.*: arrays of different lengths")


def metadata(data: bytes) -> dict[str, str]:
    """Return our fields of the metadata of a snapshot, read without touching the arrays.

    Raises:
        DamagedStateError: There are none.
    """
    try:
        size = int.from_bytes(data[:8], "little")
        if not 0 < size <= len(data) - 8:
            raise ValueError("it is cut off")
        meta = msgspec.json.decode(msgspec.json.decode(data[8 : 8 + size], type=_Outer).meta[KEY], type=dict[str, str])
    except (ValueError, KeyError, msgspec.MsgspecError, RecursionError) as error:
        raise DamagedStateError(f"The snapshot cannot be read: {error}.", hint=OTHERS) from error
    return meta
