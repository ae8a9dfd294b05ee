"""How scores and incidents are told to a person."""

from __future__ import annotations

from stream_ad.cli.output_rows import Columns


def test_columns_stay_aligned():
    """Cells stand below those of the header; a longer cell moves those of all further lines."""
    columns = Columns(("A", "B"))
    assert columns.lines([("1", "2")]) == ["A  B", "1  2"]
    assert columns.lines([("long", "3")]) == ["long  3"]
    assert columns.lines([("1", "4")]) == ["1     4"]
