"""Figures as people read them; None, for a figure that cannot be had, is a dash."""

from __future__ import annotations


def figure(value: float | None) -> str:
    """An area, to three places."""
    return "–" if value is None else f"{value:.3f}"


def count(number: int, word: str) -> str:
    """A number of things.

    >>> count(1, "row"), count(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def percent(share: float | None) -> str:
    """A share, to three digits.

    >>> percent(0.00451)
    '0.451 %'
    """
    return "–" if share is None else f"{100 * share:.3g} %"


def short(value: float | None) -> str:
    """A number, whole from a hundred on, else to two digits."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
