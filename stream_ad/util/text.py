"""Text for people: durations, and names that others have given."""

from __future__ import annotations

_UNITS_S = {"d": 86_400, "h": 3600, "min": 60, "s": 1}


def printable(text: str) -> str:
    """Replace what a terminal might take for a command: sensors and features are named by others.

    >>> printable("pump-7")
    'pump-7'
    """
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def duration(seconds: float) -> str:
    """Return a duration in its two largest units.

    >>> duration(3520.4), duration(93_600), duration(0.5)
    ('58 min 40 s', '1 d 2 h', '0 s')
    """
    rest = max(0, int(seconds))
    parts: list[str] = []
    for unit, size in _UNITS_S.items():
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(filter(None, parts[:2])) or "0 s"
