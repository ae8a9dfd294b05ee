"""Recordings in Parquet, and columns of other names: what is read is what CSV would have given."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream_ad.errors import InputFileError
from stream_ad.evaluation.recordings.csv_reader import parse_columns, read_recording

TIMES = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2025, 12, 31, 23, 0, 1, tzinfo=dt.UTC)]
GOOD = {
    "timestamp": TIMES,
    "sensor_id": ["a", "b"],
    "label": ["normal", None],
    "evaluate": [False, True],
    "temp": [1.5, None],
    "vib": [2, -300],
}


def write(path, columns, **types):
    arrays = {name: pa.array(values, types.get(name)) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), path)
    return path


def refusal(path):
    with pytest.raises(InputFileError) as caught:
        read_recording(path)
    assert caught.value.hint
    assert str(path) in caught.value.what
    return caught.value.what


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"timestamp": ["2026-01-01T00:00:00Z", "2026-01-01T00:00:01+01:00"]},
        {"timestamp": [time.replace(tzinfo=None) for time in TIMES]},
        {"evaluate": [0, 1]},
        {"label": ["normal", " "]},
        {"temp": [1.5, float("nan")]},
    ],
    ids=lambda changes: next(iter(changes), "plain"),
)
def test_columns(tmp_path, changes):
    """Whatever types carry them, the same columns arrive: times, names, flags, readings, missing ones as NaN."""
    recording = read_recording(write(tmp_path / "plant.parquet", GOOD | changes))
    assert recording.stem == "plant"
    assert recording.times_ns.tolist() == [1_767_225_600_000_000_000, 1_767_222_001_000_000_000]
    assert recording.sensor_ids == ["a", "b"]
    assert recording.labels == ["normal", None]
    assert recording.evaluate.tolist() == [False, True]
    assert recording.features == ("temp", "vib")
    np.testing.assert_array_equal(recording.values, [[1.5, 2], [np.nan, -300]])


def test_numbers_as_names(tmp_path):
    """Sensors and classes that are numbers are taken by their digits; categories by their names."""
    path = write(tmp_path / "n.pq", GOOD | {"sensor_id": [7, 12], "label": [0, 3]})
    recording = read_recording(path)
    assert (recording.stem, recording.sensor_ids, recording.labels) == ("n", ["7", "12"], ["0", "3"])
    table = pa.table({**GOOD, "label": pa.array(["normal", "leak"]).dictionary_encode()})
    pq.write_table(table, path)
    assert read_recording(path).labels == ["normal", "leak"]


def test_an_unnamed_index_is_no_feature(tmp_path):
    """The index that pandas writes along is left out."""
    path = write(tmp_path / "i.parquet", GOOD | {"__index_level_0__": [0, 1]})
    assert read_recording(path).features == ("temp", "vib")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"timestamp": [1, 2]}, "column timestamp: has the type int64"),
        ({"timestamp": [TIMES[0], None]}, "row 2, column timestamp: is empty"),
        ({"timestamp": ["2026-01-01T00:00:00Z", "soon"]}, "row 2, column timestamp"),
        ({"sensor_id": ["a", None]}, "row 2, column sensor_id: is empty"),
        ({"sensor_id": ["a", "b" * 257]}, "row 2, column sensor_id: is longer than 256"),
        ({"evaluate": [0, 2]}, "row 2, column evaluate: is neither"),
        ({"vib": ["warm", "cold"]}, "column vib: has the type string"),
        ({"vib": [1.0, float("inf")]}, "row 2, column vib: is not finite"),
    ],
)
def test_bad_values(tmp_path, changes, says):
    """What cannot be meant is refused with its row and column."""
    assert says in refusal(write(tmp_path / "x.parquet", GOOD | changes))


def test_bad_files(tmp_path):
    """A file that is cut off, has no rows or lacks a column is refused with the reason."""
    path = write(tmp_path / "x.parquet", GOOD)
    path.write_bytes(path.read_bytes()[:-50])
    assert "cannot be read as Parquet" in refusal(path)
    assert "no rows" in refusal(write(path, {name: values[:0] for name, values in GOOD.items()}))
    assert "column label is missing" in refusal(write(path, {n: v for n, v in GOOD.items() if n != "label"}))
    assert "no feature" in refusal(write(path, {n: v for n, v in GOOD.items() if n not in ("temp", "vib")}))


def test_other_names(tmp_path):
    """Columns that the file calls otherwise are found by what they were said to be called, in CSV and in Parquet."""
    mapped = parse_columns(["timestamp=ts", "sensor_id = device"])
    renamed = {{"timestamp": "ts", "sensor_id": "device"}.get(name, name): values for name, values in GOOD.items()}
    csv = tmp_path / "x.csv"
    csv.write_text("ts,device,label,evaluate,temp,vib\n2026-01-01T00:00:00Z,a,normal,0,1.5,2\n")
    for path in (csv, write(tmp_path / "x.parquet", renamed)):
        recording = read_recording(path, mapped)
        assert (recording.sensor_ids[0], recording.features) == ("a", ("temp", "vib"))
        with pytest.raises(InputFileError, match="column when is missing; found: ts, device"):
            read_recording(path, {"timestamp": "when"})


@pytest.mark.parametrize("text", ["timestamp", "timestamp=", "temp=t", "=x"])
def test_bad_mappings(text):
    """A mapping that names no column of ours, or none of the file, is refused."""
    with pytest.raises(ValueError, match=r"NAME=COLUMN|none of timestamp"):
        parse_columns([text])
