"""Recorded and simulated streams are written in the default message format; their readers must expect it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ad.errors import SettingsError
from stream_ad.settings import EventSettings

if TYPE_CHECKING:
    from stream_ad.settings import Settings


def require_default_form(settings: Settings) -> None:
    """Refuse settings with which a worker would reject or misread everything that is written.

    Raises:
        SettingsError: ``events.fields`` or ``events.timestamp_format`` is not the default.
    """
    default = EventSettings()
    for name in ("fields", "timestamp_format"):
        if getattr(settings.events, name) != getattr(default, name):
            raise SettingsError(
                f"events.{name} describes another message format than the one that this command writes.",
                hint=f"Leave events.{name} out of the settings of this command and of the worker that reads along.",
            )
