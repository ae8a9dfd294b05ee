"""Recordings in Parquet: the same columns as in CSV, with types of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from stream_ad.codec.timestamps import MALFORMED, OUT_OF_RANGE, parse_rfc3339
from stream_ad.errors import InputFileError
from stream_ad.evaluation.recordings.recording import EVALUATE, Recording, feature_names, named, stem_of
from stream_ad.records.schemas import MAX_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

MAGIC = b"PAR1"
_INDEX = "__index_level_"  # how pandas calls an index without a name


def read_parquet(path: Path, columns: Mapping[str, str] | None = None) -> Recording:
    """Read a Parquet file whole.

    Times are timestamps (without a zone: UTC) or RFC 3339 texts, ``evaluate`` is true and false or 0 and 1.

    Raises:
        InputFileError: pyarrow is not there, or the file cannot be read or breaks the form.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 -- an extra
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise InputFileError(
            f"{path}: is Parquet, which needs pyarrow.", hint="Install it: pip install 'stream-ad[parquet]'."
        ) from error
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputFileError(
            f"{path}: cannot be read as Parquet: {error}.", hint="Copy or write the file again."
        ) from error
    table = table.select([name for name in table.column_names if not name.startswith(_INDEX)])
    names = named(table.column_names, columns, str(path))
    if not table.num_rows:
        raise InputFileError(f"{path}: has columns but no rows.", hint="Check how it was written.")
    return _Table(path, dict(zip(names, table.columns, strict=True)), pa).read(names)


class _Table:
    def __init__(self, path: Path, columns: dict[str, Any], pa: Any) -> None:
        self._path, self._columns, self._pa = path, columns, pa

    def read(self, names: list[str]) -> Recording:
        features = feature_names(names)
        sensors = self._texts("sensor_id")
        if None in sensors or "" in sensors:
            self._refuse(sensors.index(None if None in sensors else ""), "sensor_id", "is empty", "Every row needs it.")
        return Recording(
            stem=stem_of(self._path.name),
            times_ns=self._times(),
            sensor_ids=[str(sensor) for sensor in sensors],
            labels=[label or None for label in self._texts("label")],
            evaluate=self._flags() if EVALUATE in names else np.ones(len(sensors), np.bool_),
            features=features,
            values=np.stack([self._numbers(name) for name in features], axis=1),
        )

    def _cast(self, name: str, kind: Any, what: str) -> Any:
        try:
            return self._columns[name].cast(kind, safe=False).combine_chunks()
        except self._pa.ArrowException as error:
            self._refuse(None, name, f"has the type {self._columns[name].type}, which is no {what}", str(error))

    def _texts(self, name: str) -> list[str | None]:
        texts = self._cast(name, self._pa.string(), "text").to_pylist()
        texts = [None if text is None else text.strip() for text in texts]
        for row, text in enumerate(texts):
            if text is not None and len(text) > MAX_NAME:
                self._refuse(row, name, f"is longer than {MAX_NAME} characters", "Shorten it.")
        return texts

    def _times(self) -> NDArray[np.int64]:
        pa, kind = self._pa, self._columns["timestamp"].type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            column = self._cast("timestamp", pa.timestamp("ns"), "time")
            if column.null_count:
                row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
                self._refuse(row, "timestamp", "is empty", "Every row needs it.")
            times = column.cast(pa.int64()).to_numpy()
            wrong = np.flatnonzero(times < 0)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            times = parse_rfc3339([text or "" for text in self._texts("timestamp")])
            wrong = np.flatnonzero((times == MALFORMED) | (times == OUT_OF_RANGE))
        else:
            self._refuse(None, "timestamp", f"has the type {kind}, which is no time", "Write it as a timestamp.")
        if wrong.size:
            self._refuse(int(wrong[0]), "timestamp", "is not an RFC 3339 time from 1970 to 2262", "Correct the row.")
        return times

    def _flags(self) -> NDArray[np.bool_]:
        numbers = self._numbers(EVALUATE)
        wrong = np.flatnonzero((numbers != 0) & (numbers != 1))
        if wrong.size:
            self._refuse(int(wrong[0]), EVALUATE, "is neither 0 nor 1", "Write 0 for a warm-up row, else 1.")
        return numbers == 1

    def _numbers(self, name: str) -> NDArray[np.float64]:
        kind = self._columns[name].type
        if self._pa.types.is_boolean(kind):
            self._columns[name] = self._columns[name].cast(self._pa.int8())
        elif not (self._pa.types.is_integer(kind) or self._pa.types.is_floating(kind) or self._pa.types.is_decimal(kind)
                  or self._pa.types.is_null(kind)):  # fmt: skip
            self._refuse(None, name, f"has the type {kind}, which is no number", "Remove it, or write it as numbers.")
        numbers = self._cast(name, self._pa.float64(), "number").to_numpy(zero_copy_only=False)
        infinite = np.flatnonzero(np.isinf(numbers))
        if infinite.size:
            self._refuse(int(infinite[0]), name, "is not finite", "Leave it empty where a reading is missing.")
        return numbers

    def _refuse(self, row: int | None, column: str, what: str, hint: str) -> NoReturn:
        place = "" if row is None else f" row {row + 1},"
        raise InputFileError(f"{self._path},{place} column {column}: {what}.", hint=hint)
