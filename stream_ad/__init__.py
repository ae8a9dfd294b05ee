"""Streaming anomaly detection that learns from delayed labels.

The public API is what this module exports, ``stream_ad.testing``, ``stream_ad.errors`` and
``stream_ad.settings.loader.load_settings``; everything else may change with any release.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream_ad.estimator import StreamADDetector
    from stream_ad.settings import Settings
    from stream_ad.worker.worker import Worker

__all__ = ["Settings", "StreamADDetector", "Worker", "__version__"]
__version__ = "0.2.0.dev0"

_MODULES = {
    "Settings": "stream_ad.settings",
    "StreamADDetector": "stream_ad.estimator",
    "Worker": "stream_ad.worker.worker",
}
"""Modules of the exported names, imported on first use, so that `import stream_ad` and the command line stay light."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
