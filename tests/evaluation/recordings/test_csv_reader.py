"""Recordings: what the file says is what comes out, and what is wrong with it is said with its place."""

from __future__ import annotations

import csv
import gzip
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ad.codec.timestamps import format_rfc3339
from stream_ad.errors import InputFileError
from stream_ad.evaluation.recordings.csv_reader import read_recording

HEADER = "timestamp,sensor_id,label,evaluate,temp,vib\n"
GOOD = HEADER + "2026-01-01T00:00:00Z,a,normal,0,1.5,2\n2026-01-01T00:00:01+01:00,b,,1,,-3e2\n"


def write(path, text):
    path.write_text(text, encoding="utf-8", newline="")
    return path


def refusal(path):
    with pytest.raises(InputFileError) as caught:
        read_recording(path)
    assert caught.value.hint
    assert str(path) in caught.value.what
    return caught.value.what


def test_columns(tmp_path):
    """Every column arrives with its type; empty features are NaN, empty labels None, rows keep their order."""
    recording = read_recording(write(tmp_path / "plant.csv", GOOD))
    assert len(recording) == 2
    assert recording.stem == "plant"
    assert recording.times_ns.tolist() == [1_767_225_600_000_000_000, 1_767_222_001_000_000_000]
    assert recording.sensor_ids == ["a", "b"]
    assert recording.labels == ["normal", None]
    assert recording.evaluate.tolist() == [False, True]
    assert recording.features == ("temp", "vib")
    np.testing.assert_array_equal(recording.values, [[1.5, 2.0], [math.nan, -300.0]])
    assert recording.event_id(0) == "plant-1"


@pytest.mark.parametrize(
    ("name", "stem"), [("a.csv.gz", "a"), ("b.gz", "b"), ("day.1.csv", "day.1"), ("plain", "plain")]
)
def test_gzip_and_stem(tmp_path, name, stem):
    """Gzip is told by its content, and the stem is the name without .csv and .gz."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(GOOD.encode()) if "gz" in name else GOOD.encode())
    recording = read_recording(path)
    assert recording.stem == stem
    assert len(recording) == 2


def test_without_evaluate(tmp_path):
    """A file that does not say what to evaluate is evaluated as a whole."""
    path = write(tmp_path / "x.csv", "sensor_id,f,timestamp,label\na,1,2026-01-01T00:00:00Z,\n")
    assert read_recording(path).evaluate.tolist() == [True]


def test_spreadsheet_habits(tmp_path):
    """A byte order mark, blank lines, quotes, spaces after commas, CRLF and NaN are read as they are meant."""
    text = '\ufefftimestamp, sensor_id, label, "temp"\r\n\r\n2026-01-01T00:00:00Z, "a,1", normal, NaN\r\n'
    recording = read_recording(write(tmp_path / "x.csv", text))
    assert recording.sensor_ids == ["a,1"]
    assert recording.features == ("temp",)
    assert np.isnan(recording.values).all()


@pytest.mark.parametrize(
    ("row", "column", "says"),
    [
        ("yesterday,a,,1,1,2", "timestamp", '"yesterday"'),
        ("2026-01-01,a,,1,1,2", "timestamp", "zone"),
        ("2026-13-01T00:00:00Z,a,,1,1,2", "timestamp", "RFC 3339"),
        ("9999-01-01T00:00:00Z,a,,1,1,2", "timestamp", "2262"),
        ("2026-01-01T00:00:00Z,,,1,1,2", "sensor_id", "empty"),
        (f"2026-01-01T00:00:00Z,{'a' * 257},,1,1,2", "sensor_id", "256"),
        (f"2026-01-01T00:00:00Z,a,{'b' * 257},1,1,2", "label", "256"),
        ("2026-01-01T00:00:00Z,a,,yes,1,2", "evaluate", '"yes"'),
        ("2026-01-01T00:00:00Z,a,,1,warm,2", "temp", '"warm"'),
        ("2026-01-01T00:00:00Z,a,,1,1,-inf", "vib", '"-inf"'),
        ("2026-01-01T00:00:00Z,a,,1,1e999,2", "temp", '"1e999"'),
    ],
)
def test_bad_cell(tmp_path, row, column, says):
    """A bad cell is refused with its line, its column and itself."""
    what = refusal(write(tmp_path / "x.csv", GOOD + "\n" + row + "\n"))  # a blank line moves the line, not the row
    assert f"line 5, column {column}:" in what
    assert says in what


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        (HEADER, "no rows"),
        ("timestamp;sensor_id;label;x\n", "line 1: column timestamp, sensor_id, label is missing"),
        ("timestamp,label,x\n", "line 1: column sensor_id is missing"),
        ("timestamp,sensor_id,label,evaluate\n", "no feature"),
        ("timestamp,sensor_id,label,x,x\n", "column x stands there twice"),
        ("timestamp,sensor_id,label,x,\n", "column 5 has no name"),
        (GOOD + "2026-01-01T00:00:00Z,a,,1,1\n", "line 4: 5 cells, but the header names 6"),
        (GOOD + "2026-01-01T00:00:00Z,a,,1,1,2,3\n", "line 4: 7 cells, but the header names 6"),
        (HEADER + f'2026-01-01T00:00:00Z,"{"a" * 200_000}",,1,1,2\n', "is not CSV"),
    ],
)
def test_bad_shape(tmp_path, text, says):
    """A file whose shape is wrong is refused with the line and what is wrong."""
    assert says in refusal(write(tmp_path / "x.csv", text))


def test_unreadable(tmp_path):
    """A file that is missing, a folder, not gzip, cut off or not text is refused with the reason."""
    assert "No such file" in refusal(tmp_path / "nowhere.csv")
    assert "directory" in refusal(tmp_path)
    assert "not gzip" in refusal(write(tmp_path / "x.csv.gz", GOOD))
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(GOOD.encode() * 50)[:-12])
    assert "damaged or cut off" in refusal(cut)
    latin = tmp_path / "latin.csv"
    latin.write_bytes(GOOD.encode() + "2026-01-01T00:00:00Z,Größe,,1,1,2\n".encode("latin-1"))
    assert "line 4: is not UTF-8" in refusal(latin)


@pytest.mark.parametrize("cell", ["1_000", "1_0.5", "\u0661", "\uff11\uff12", "_1", " 1_000 "])
def test_numbers_of_python_alone_are_refused(tmp_path, cell):
    """What Python takes for a number and no other program writes as one is refused, by its line and column."""
    path = tmp_path / "a.csv"
    path.write_text(f"timestamp,sensor_id,label,x\n2026-01-01T00:00:00Z,a,,1\n2026-01-01T00:00:01Z,a,,{cell}\n")
    with pytest.raises(InputFileError, match=r"line 3, column x: .* is not a number"):
        read_recording(path)
    path.write_text("timestamp,sensor_id,label,x,y_1\n2026-01-01T00:00:00Z,a_1\u0661,,1,-1.5e3\n")
    assert read_recording(path).values.tolist() == [[1.0, -1500.0]]


cells = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))
names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2**62), names, st.none() | names, st.tuples(cells, cells, cells)),
        min_size=1,
        max_size=20,
    )
)
def test_round_trip(tmp_path_factory, rows):
    """Whatever was written as CSV is read back without loss, in its order."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["timestamp", "sensor_id", "label", "x", "y", "z"])
    times = format_rfc3339(np.array([time_ns for time_ns, *_ in rows]))
    for time, (_, sensor, label, values) in zip(times, rows, strict=True):
        writer.writerow([time, sensor, label or "", *("" if v is None else repr(v) for v in values)])
    recording = read_recording(write(tmp_path_factory.mktemp("round") / "r.csv", text.getvalue()))
    assert recording.times_ns.tolist() == [time_ns for time_ns, *_ in rows]
    assert recording.sensor_ids == [sensor for _, sensor, _, _ in rows]
    assert recording.labels == [label for _, _, label, _ in rows]
    np.testing.assert_array_equal(recording.values, [[math.nan if v is None else v for v in row[3]] for row in rows])
