"""Format figures for people; None, a figure without a value, becomes a dash."""

from __future__ import annotations


def figure(value: float | None) -> str:
    """Format an area with three decimals."""
    return "–" if value is None else f"{value:.3f}"


def count(number: int, word: str) -> str:
    """Format a number of things, with the plural where it is due.

    >>> count(1, "row"), count(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def percent(share: float | None) -> str:
    """Format a share in percent, with three digits.

    >>> percent(0.00451)
    '0.451 %'
    """
    return "–" if share is None else f"{100 * share:.3g} %"


def short(value: float | None) -> str:
    """Format a number: whole from 100 on, else with two digits."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
