"""Promises of texts for people."""

from __future__ import annotations

import pytest

from stream_ad.util.text import duration, printable


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0.9, "0 s"), (61, "1 min 1 s"), (3600, "1 h"), (90_061, "1 d 1 h"), (86_460, "1 d")],
)
def test_durations_have_two_units(seconds, text):
    """A duration is told in its two largest units; where the second is zero, in the first alone."""
    assert duration(seconds) == text


def test_printable_text_is_untouched():
    """Letters of any script stay as they are."""
    assert printable("Pümpe ７ 压") == "Pümpe ７ 压"
