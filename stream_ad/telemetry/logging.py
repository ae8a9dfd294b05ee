"""Logs on standard error: coloured text on a terminal, JSON lines elsewhere.

Every logger of the process goes through this module, including those of libraries. Secrets of the settings are
masked in every message and traceback, and a repeated warning is shown every few seconds with a count of the rest.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, TextIO

import structlog
from pydantic import BaseModel, SecretStr

from stream_ad.settings.keys import MASK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping

    from stream_ad.settings import Settings

REPEAT_SECONDS = 10.0
_REPEAT_KEYS = 256
_NOISY = ("kafka",)  # logs every interruption of a connection as information


class RateLimit:
    """A structlog processor that passes the same warning or error once every few seconds.

    The next line that passes says how many were held back (``repeated``).

    Args:
        seconds: Time between two equal messages of one logger.
        clock: Monotonic seconds.
        on_drop: Called for each line held back.
    """

    def __init__(
        self,
        *,
        seconds: float = REPEAT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        on_drop: Callable[[], None] = lambda: None,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self.on_drop = on_drop
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}  # last shown, held back since

    def __call__(
        self, _logger: object, method: str, event_dict: MutableMapping[str, object]
    ) -> MutableMapping[str, object]:
        if method not in {"warning", "error", "exception", "critical"}:
            return event_dict
        record = event_dict.get("_record")
        template = record.msg if isinstance(record, logging.LogRecord) else event_dict.get("event")
        held_back = self._admit((str(event_dict.get("logger", "")), str(template)))
        if held_back is None:
            self.on_drop()
            raise structlog.DropEvent
        if held_back:
            event_dict["repeated"] = held_back
        return event_dict

    def _admit(self, key: tuple[str, str]) -> int | None:
        now = self._clock()
        with self._lock:
            shown, held_back = self._seen.get(key, (-self._seconds, 0))
            if now - shown < self._seconds:
                self._seen[key] = (shown, held_back + 1)
                return None
            if len(self._seen) >= _REPEAT_KEYS:
                self._seen.clear()
            self._seen[key] = (now, 0)
            return held_back


def configure_logging(settings: Settings, *, stream: TextIO | None = None) -> RateLimit:
    """Set up logging for the whole process; the last call counts.

    Args:
        settings: ``logs`` is the configuration; all secrets are masked.
        stream: Where to write; None is standard error.

    Returns:
        The rate limit, so that the lines it holds back can be counted.
    """
    out = sys.stderr if stream is None else stream
    terminal = out.isatty()
    as_json = settings.logs.format == "json" or (settings.logs.format == "auto" and not terminal)
    limit = RateLimit()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        limit,
        _expand,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    render: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
        if as_json
        else [
            structlog.dev.ConsoleRenderer(
                colors=terminal and "NO_COLOR" not in os.environ,
                exception_formatter=structlog.dev.plain_traceback,  # the rich one prints local variables
            )
        ]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render, _Mask(settings)],
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _Handler(out)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.logs.level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    return limit


def _expand(_logger: object, _method: str, event_dict: MutableMapping[str, object]) -> MutableMapping[str, object]:
    """Turn dataclasses such as InputOffsets into fields: JSON holds no text that only Python can read."""
    for name, value in event_dict.items():
        if is_dataclass(value) and not isinstance(value, type):
            event_dict[name] = asdict(value)
    return event_dict


class _Handler(logging.StreamHandler[TextIO]):
    """A stream handler that lets the rate limit drop records of other libraries' loggers."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.stream.write(self.format(record) + self.terminator)
            self.flush()
        except structlog.DropEvent:
            pass
        except OSError:
            pass  # standard error is closed; the work continues
        except Exception:  # noqa: BLE001 -- the contract of logging handlers
            self.handleError(record)


class _Mask:
    """Replaces every secret of the settings in the finished line."""

    def __init__(self, settings: Settings) -> None:
        forms = set(_secrets(settings))
        forms |= {repr(form)[1:-1] for form in forms}  # inside a message
        forms |= {json.dumps(form)[1:-1] for form in forms}  # inside a line of JSON
        self._secrets = sorted(forms, key=len, reverse=True)

    def __call__(self, _logger: object, _method: str, line: str | Mapping[str, object] | bytes) -> str:
        text = str(line)
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text


def _secrets(section: BaseModel) -> Iterator[str]:
    for value in section.__dict__.values():
        if isinstance(value, SecretStr) and value.get_secret_value():
            yield value.get_secret_value()
        elif isinstance(value, BaseModel):
            yield from _secrets(value)
