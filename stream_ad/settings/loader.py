"""``load_settings``: one frozen tree from all sources, or one error that lists everything wrong.

Sources, the first takes precedence: ``--set key=value``, environment (``STREAM_AD_BROKER__KIND``), YAML file,
secret files, defaults. Sections are merged key by key; lists are replaced as a whole.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from stream_ad.detector.config import REPLACED
from stream_ad.errors import SettingsError
from stream_ad.settings import Settings
from stream_ad.settings.keys import MASK, all_keys
from stream_ad.settings.sources import (
    SettingsSource,
    environment_sources,
    overrides_source,
    unknown,
    yaml_source,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

_LONGEST_VALUE = 60  # characters of a wrong value that an error quotes
_NOT_SHOWN = object()


@dataclass(frozen=True, slots=True)
class Resolved:
    """The settings, and where each one that is not a default was written."""

    settings: Settings
    origins: Mapping[str, str]


def load_settings(
    config: Path | None = None, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> Settings:
    """Read all sources.

    Args:
        config: YAML file, or None.
        overrides: ``key=value`` texts, as given to ``--set``.
        environ: Environment variables.

    Raises:
        SettingsError: A setting is unknown, unreadable, of the wrong type or contradicts another; the message lists
            all of them, each with its location.
    """
    return resolve(config, overrides, environ).settings


def resolve(
    config: Path | None = None, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> Resolved:
    """Read all sources as ``load_settings`` does, and return the origin of every value too."""
    resolved, problems = examine(config, overrides, environ)
    if resolved is None:
        raise settings_error(problems)
    return resolved


def settings_error(problems: Sequence[str]) -> SettingsError:
    """Return one error that lists all problems."""
    single = len(problems) == 1
    what = problems[0] if single else "\n  ".join([f"{len(problems)} settings are wrong:", *problems])
    return SettingsError(what, hint="`stream-ad config schema` shows every setting and its default.")


def examine(
    config: Path | None = None, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> tuple[Resolved | None, list[str]]:
    """Read all sources as ``resolve`` does, but return the problems instead of raising them."""
    variables, files = environment_sources(environ)
    sources = [overrides_source(overrides), variables, yaml_source(config) if config else SettingsSource(), files]
    problems = [problem for source in sources for problem in source.problems]
    values: dict[str, Any] = {}
    for source in sources:
        values = _merge(values, source.values)
    problems += _take_out_replaced(values, sources)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        return None, problems + _explain(error.errors(include_url=False), sources)
    if settings.alarms.windows and not problems:
        problems += _unusable_windows(settings, sources)
    if problems:
        return None, problems
    leaves = (name for name, key in all_keys().items() if not key.is_section)
    return Resolved(settings, {name: location for name in leaves if (location := _location(name, sources))}), []


def _take_out_replaced(values: dict[str, Any], sources: Sequence[SettingsSource]) -> list[str]:
    """Remove settings of earlier versions, and return what to write instead of each."""
    problems = []
    for name, instead in REPLACED.items():
        section, _, leaf = name.rpartition(".")
        inside = values.get(section) if section else values
        if isinstance(inside, dict) and leaf in inside:
            if section:
                values[section] = inside = dict(inside)  # that of a source stays as it is
            del inside[leaf]
            problems.append(f"{_location(name, sources)}: {name} {instead}".removeprefix(": "))
    return problems


def _unusable_windows(settings: Settings, sources: Sequence[SettingsSource]) -> list[str]:
    """Return what is wrong with the calendar files of planned windows."""
    # Imported only where there are windows: the libraries behind it take longer than reading all settings.
    from stream_ad.detector.alarms.windows import read_windows  # noqa: PLC0415

    location = _location("alarms.windows", sources)
    return [
        f"{location}: alarms.windows: {problem}".removeprefix(": ")
        for problem in read_windows(settings.alarms.windows)[1]
    ]


def _merge(preferred: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return a deep merge of two dictionaries; where both set a value, ``preferred`` counts."""
    merged = {**other, **preferred}
    for name in preferred.keys() & other.keys():
        if isinstance(preferred[name], dict) and isinstance(other[name], dict):
            merged[name] = _merge(preferred[name], other[name])
    return merged


def _location(key: str, sources: Iterable[SettingsSource]) -> str:
    """Return where a key's value was set, or "" where it is the default."""
    return next(filter(None, (source.location(key) for source in sources)), "")


def _locations(key: str, sources: Sequence[SettingsSource]) -> str:
    """Return the location of a setting, or of a section the locations of what is set in it."""
    inside = (_location(name, sources) for name in all_keys() if name.startswith(f"{key}."))
    return ", ".join(dict.fromkeys(filter(None, inside))) or _location(key, sources)


def _explain(errors: Iterable[ErrorDetails], sources: Sequence[SettingsSource]) -> list[str]:
    """Return one line per key: location, key, value, what was expected. The members of a union share one line.

    What is wrong in an entry of a list says in which, and there it is the value in the entry that is shown.
    """
    expected: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    for error in errors:
        key, entry = _key_of(error)
        message = _message(error, key)
        if entry:
            message = f"{entry}{_quoted(error)}: {message}"
        if message not in expected.setdefault(key, []):
            expected[key].append(message)
        values[key] = _NOT_SHOWN if entry else error["input"]
    lines = []
    for key, messages in expected.items():
        location = _locations(key, sources)
        named = location if location.endswith(f" {key}") else f"{location}: {key}".removeprefix(": ")
        lines.append(f"{named}{_shown(key, values[key])}: {', or '.join(messages)}")
    return lines


def _key_of(error: ErrorDetails) -> tuple[str, str]:
    """Return the dotted key of an error, and where in a list of sections it is, or "".

    What pydantic adds below a key (members of a union, indices of a list of texts) is left out.
    """
    parts = [str(part) for part in error["loc"]]
    known_parts = len(parts)
    while known_parts and ".".join(parts[:known_parts]) not in all_keys():
        known_parts -= 1
    key, below = ".".join(parts[:known_parts]), error["loc"][known_parts:]
    if key in all_keys() and all_keys()[key].holds_sections:
        return key, ", ".join(f"entry {part + 1}" if isinstance(part, int) else part for part in below)
    return (".".join(parts) if error["type"] == "extra_forbidden" else key), ""


def _quoted(error: ErrorDetails) -> str:
    """Return the value that is wrong in an entry of a list, unless it is that entry."""
    value = error["input"]
    return f" = {_short(value)}" if isinstance(value, str | int | float) and error["type"] != "extra_forbidden" else ""


def _message(error: ErrorDetails, key: str) -> str:
    if error["type"] == "extra_forbidden" and key in all_keys():
        return "there is no such key"
    if error["type"] == "extra_forbidden":
        return unknown(key, lambda meant: meant.name)
    if error["type"] in {"model_type", "model_attributes_type"}:
        return f"is a section; write {key}.NAME"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    number_for_text = error["type"] == "string_type" and isinstance(error["input"], int | float)
    return f"{message}; put quotes around it" if number_for_text else message


def _shown(key: str, value: Any) -> str:
    setting = all_keys().get(key)
    if setting is None or setting.is_section or value is _NOT_SHOWN:
        return ""
    if setting.is_secret:
        return f" = {MASK}"
    return f" = {_short(value)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"
