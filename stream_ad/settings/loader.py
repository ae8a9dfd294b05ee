"""``load_settings``: one frozen tree out of all sources, or one error that lists everything wrong.

Sources, the first wins: ``--set key=value``, environment (``STREAM_AD_BROKER__KIND``), YAML file,
secret files, defaults.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_settings import InitSettingsSource

from stream_ad.errors import SettingsError
from stream_ad.settings import Settings
from stream_ad.settings.keys import MASK, all_keys
from stream_ad.settings.sources import SettingsSource, Sourced, environment_layers, overrides_layer, unknown
from stream_ad.settings.yaml_source import yaml_layer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails
    from pydantic_settings import BaseSettings

_LONGEST_VALUE = 60


@dataclass(frozen=True, slots=True)
class Resolved:
    """The settings, and where each one that is no default was written."""

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
        SettingsError: Something is unknown, unreadable, of the wrong kind or contradicts something
            else; the message lists all of it, with the place of each.
    """
    return resolve(config, overrides, environ).settings


def resolve(
    config: Path | None = None, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> Resolved:
    """As ``load_settings``, with the origin of every value."""
    resolved, problems = examine(config, overrides, environ)
    if resolved is None:
        raise settings_error(problems)
    return resolved


def settings_error(problems: Sequence[str]) -> SettingsError:
    """One error that lists them."""
    one = len(problems) == 1
    what = problems[0] if one else "\n  ".join([f"{len(problems)} settings are wrong:", *problems])
    return SettingsError(what, hint="`stream-ad config schema` shows every setting and its default.")


def examine(
    config: Path | None = None, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> tuple[Resolved | None, list[str]]:
    """As ``resolve``, but gives back what is wrong instead of raising it."""
    variables, files = environment_layers(environ)
    layers = [overrides_layer(overrides), variables, yaml_layer(config) if config else SettingsSource(), files]
    problems = [problem for layer in layers for problem in layer.problems]
    try:
        settings = _validated(layers)
    except ValidationError as error:
        return None, problems + _explain(error.errors(include_url=False), layers)
    if problems:
        return None, problems
    leaves = (name for name, key in all_keys().items() if not key.is_section)
    return Resolved(settings, {name: place for name in leaves if (place := _where(name, layers))}), []


def _validated(layers: Iterable[SettingsSource]) -> Settings:
    class Merged(Sourced):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: Any, **__: Any
        ) -> tuple[InitSettingsSource, ...]:
            return tuple(InitSettingsSource(settings_cls, layer.values) for layer in layers)

    merged = Merged()
    return Settings.model_validate({name: getattr(merged, name) for name in merged.model_fields_set})


def _where(key: str, layers: Iterable[SettingsSource]) -> str:
    """The place that decided a key's value, or "" where that is the default."""
    return next(filter(None, (layer.where(key) for layer in layers)), "")


def _places(key: str, layers: Sequence[SettingsSource]) -> str:
    """Of a setting its place; of a section the places of what is set in it."""
    inside = (_where(name, layers) for name in all_keys() if name.startswith(f"{key}."))
    return ", ".join(dict.fromkeys(place for place in inside if place)) or _where(key, layers)


def _explain(errors: Iterable[ErrorDetails], layers: Sequence[SettingsSource]) -> list[str]:
    """One line per key: place, key, value, what was expected. Members of a union complain together."""
    expected: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    for error in errors:
        key = _key_of(error)
        message = _message(error, key)
        if message not in expected.setdefault(key, []):
            expected[key].append(message)
        values[key] = error["input"]
    lines = []
    for key, messages in expected.items():
        place = _places(key, layers)
        named = place if place.endswith(f" {key}") else f"{place}: {key}".removeprefix(": ")
        lines.append(f"{named}{_shown(key, values[key])}: {', or '.join(messages)}")
    return lines


def _key_of(error: ErrorDetails) -> str:
    """The dotted key of an error; what pydantic adds below it (members of a union, indices) is left out."""
    parts = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        return ".".join(parts)
    while parts and ".".join(parts) not in all_keys():
        parts.pop()
    return ".".join(parts)


def _message(error: ErrorDetails, key: str) -> str:
    if error["type"] == "extra_forbidden":
        return unknown(key, lambda meant: meant.name)
    if error["type"] in {"model_type", "model_attributes_type"}:
        return f"is a section; write {key}.NAME"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    number_for_text = error["type"] == "string_type" and isinstance(error["input"], int | float)
    return f"{message}; put quotes around it" if number_for_text else message


def _shown(key: str, value: Any) -> str:
    known = all_keys().get(key)
    if known is None or known.is_section:
        return ""
    if known.is_secret:
        return f" = {MASK}"
    text = repr(value)
    return f" = {text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + '…'}"
