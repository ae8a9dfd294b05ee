"""A shard's state as bytes: safetensors for the arrays, a JSON header for the rest; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from stream_ad import __version__
from stream_ad.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stream_ad.detector.config import DetectorOptions

FORMAT = 1
KEY = "stream_ad"
START_FRESH = (
    "Restore an older snapshot, go back to the settings it was made with, or start fresh under a new application_id."
)


def fingerprint(options: DetectorOptions) -> str:
    """Of the settings that decide the shape of the state: a snapshot fits where these are the same."""
    learning = options.learning
    shape = {
        "format": FORMAT,
        "models": options.detector.models,
        "seed": options.detector.seed,
        "batch_events": learning.batch_events,
        "label_horizon_events": learning.label_horizon_events,
        "warmup_events": learning.warmup_events,
        "replay_events": learning.replay_events,
        "window_events": options.threshold.window_events,
    }
    return f"{FORMAT}-{hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:10]}"


def dump(options: DetectorOptions, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> bytes:
    """Bytes that ``parse`` reads; the same state gives the same bytes."""
    arrays = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    text = json.dumps(header, sort_keys=True)
    meta = {
        "format": str(FORMAT),
        "program": __version__,
        "fingerprint": fingerprint(options),
        "digest": _digest(text, arrays),
        "header": text,
    }
    return save(arrays, metadata={KEY: json.dumps(meta)})  # one key: safetensors writes several in random order


def _digest(header: str, arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


@contextmanager
def parse(data: bytes, options: DetectorOptions) -> Iterator[tuple[dict[str, Any], dict[str, NDArray[Any]]]]:
    """Header and arrays of a snapshot; whatever is wrong with it, there or in the block, is a StateError."""
    meta = metadata(data)
    if meta.get("format") != str(FORMAT):
        raise StateError(
            f"The snapshot has format {meta.get('format')!r}; this program reads format {FORMAT}.",
            hint="Run the version of the program that wrote it, or start fresh under a new application_id.",
        )
    if meta.get("fingerprint") != fingerprint(options):
        raise StateError(
            "The snapshot was made with other settings for the shape of the state (detector.models, detector.seed, "
            "learning.batch_events, label_horizon_events, warmup_events, replay_events or threshold.window_events).",
            hint=START_FRESH,
        )
    try:
        arrays = load(data)
        if _digest(meta["header"], arrays) != meta.get("digest"):
            raise ValueError("its digest does not match its content")
        yield json.loads(meta["header"]), arrays
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError, AssertionError, OverflowError) as error:
        raise StateError(f"The snapshot cannot be used: {error}.", hint=START_FRESH) from error


def metadata(data: bytes) -> dict[str, str]:
    """The header's own fields, read without touching the arrays; StateError when there is no such header."""
    try:
        size = int.from_bytes(data[:8], "little")
        if not 0 < size <= len(data) - 8:
            raise ValueError("it is cut off")
        meta = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][KEY])
        if not isinstance(meta, dict):
            raise TypeError("it has no header")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StateError(f"The snapshot cannot be read: {error}.", hint=START_FRESH) from error
    return {str(key): str(value) for key, value in meta.items()}
