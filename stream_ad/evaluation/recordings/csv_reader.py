"""Recorded readings: one form, as CSV or Parquet, read whole into columns.

The form: ``timestamp`` (RFC 3339), ``sensor_id``, ``label`` (``normal``, the name of an anomaly class,
or empty where nobody knows), optionally ``evaluate`` (0: a warm-up row, learned but not evaluated), and
every other column is a feature. An empty (or ``nan``) feature is missing. Rows are in arrival order,
sensors interleaved; the order is kept, whatever the timestamps say. CSV may be gzipped (``.gz``).
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from itertools import islice
from pathlib import Path
from sys import intern
from typing import IO, TYPE_CHECKING, NoReturn, cast

import numpy as np

from stream_ad.codec.timestamps import MALFORMED, OUT_OF_RANGE, parse_rfc3339
from stream_ad.errors import InputFileError
from stream_ad.evaluation.recordings.parquet_reader import MAGIC, read_parquet
from stream_ad.evaluation.recordings.recording import EVALUATE, Recording, feature_names, named, parse_columns, stem_of
from stream_ad.records.schemas import MAX_NAME

__all__ = ["Recording", "parse_columns", "read_recording"]

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

_BLOCK_ROWS = 8192
_GZIP_MAGIC = b"\x1f\x8b"


def read_recording(path: str | Path, columns: Mapping[str, str] | None = None) -> Recording:
    """Read a recording: CSV, gzipped or not, or Parquet.

    Args:
        path: The file.
        columns: The file's name for each column of ours that it calls otherwise, as ``parse_columns`` gives it.

    Raises:
        InputFileError: The file cannot be read or breaks the form; says line, column and what to do.
    """
    path = Path(path)
    try:
        if _begins_with(path, MAGIC):
            return read_parquet(path, columns)
        with _open_text(path) as stream:
            return _Reader(path, stream, columns).read()
    except OSError as error:  # includes gzip.BadGzipFile
        reason = error.strerror or str(error)
        raise InputFileError(
            f"{path}: cannot be read: {reason}.", hint="Check the path and its permissions."
        ) from error
    except (EOFError, zlib.error) as error:
        raise InputFileError(
            f"{path}: the gzip data is damaged or cut off ({error}).", hint="Copy or download the file again."
        ) from error
    except UnicodeDecodeError as error:
        raise InputFileError(
            f"{path}, line {_undecodable_line(path)}: is not UTF-8 text.", hint="Save the file as UTF-8."
        ) from error


def _undecodable_line(path: Path) -> int:
    """Return the first line that is not UTF-8; text is decoded in blocks that do not follow lines."""
    with _open_binary(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    raise AssertionError(path)


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as raw:
        return raw.read(len(magic)) == magic


def _open_binary(path: Path) -> IO[bytes]:
    gzipped = _begins_with(path, _GZIP_MAGIC)
    if path.suffix.lower() == ".gz" and not gzipped:
        raise InputFileError(f"{path}: ends in .gz but is not gzip data.", hint="Rename it, or gzip it.")
    return cast(IO[bytes], gzip.open(path)) if gzipped else path.open("rb")


def _open_text(path: Path) -> IO[str]:
    return io.TextIOWrapper(_open_binary(path), encoding="utf-8-sig", newline="")


class _Reader:
    """Reads block by block, so that a long file never stands in memory as text."""

    def __init__(self, path: Path, stream: IO[str], columns: Mapping[str, str] | None) -> None:
        self.path = path
        self.columns = columns
        self.rows = csv.reader(stream, skipinitialspace=True)
        self.lines: list[int] = []  # of the rows of the block being read

    def read(self) -> Recording:
        header = self._header()
        at = {name: index for index, name in enumerate(header)}
        features = feature_names(header)
        times: list[NDArray[np.int64]] = []
        sensors: list[str] = []
        labels: list[str | None] = []
        evaluate: list[NDArray[np.bool_]] = []
        values: list[NDArray[np.float64]] = []
        for block in self._blocks(len(header)):
            columns = list(zip(*block, strict=True))
            times.append(self._times(columns[at["timestamp"]]))
            sensors += self._names(columns[at["sensor_id"]], "sensor_id")
            labels += (name or None for name in self._names(columns[at["label"]], "label", empty=True))
            if EVALUATE in at:
                evaluate.append(self._flags(columns[at[EVALUATE]]))
            values.append(np.stack([self._numbers(columns[at[name]], name) for name in features], axis=1))  # (B, F)
        if not sensors:
            raise InputFileError(f"{self.path}: has a header but no rows.", hint="Check how it was written.")
        return Recording(
            stem=stem_of(self.path.name),
            times_ns=np.concatenate(times),
            sensor_ids=sensors,
            labels=labels,
            evaluate=np.concatenate(evaluate) if evaluate else np.ones(len(sensors), dtype=np.bool_),
            features=features,
            values=np.concatenate(values),
        )

    def _header(self) -> list[str]:
        header = [name.strip() for name in next(self._checked(), [])]
        if not header:
            raise InputFileError(f"{self.path}: is empty.", hint="The first line must name the columns.")
        return named(header, self.columns, f"{self.path}, line {self.rows.line_num}")

    def _checked(self) -> Iterator[list[str]]:
        """Yield rows that are not blank; errors of the csv module get their line."""
        while True:
            try:
                row = next(self.rows)
            except StopIteration:
                return
            except csv.Error as error:
                raise InputFileError(
                    f"{self.path}, line {self.rows.line_num}: is not CSV ({error}).", hint="Check quotes and line ends."
                ) from error
            if row:
                yield row

    def _blocks(self, width: int) -> Iterator[list[list[str]]]:
        rows = self._checked()
        while True:
            block: list[list[str]] = []
            self.lines = []
            for row in islice(rows, _BLOCK_ROWS):
                if len(row) != width:
                    raise InputFileError(
                        f"{self.path}, line {self.rows.line_num}: {len(row)} cells, but the header names {width}.",
                        hint="Look for a missing comma, or one that needs quotes around its cell.",
                    )
                block.append(row)
                self.lines.append(self.rows.line_num)
            if not block:
                return
            yield block

    def _times(self, cells: Sequence[str]) -> NDArray[np.int64]:
        times = parse_rfc3339(cells)
        wrong = np.flatnonzero((times == MALFORMED) | (times == OUT_OF_RANGE))
        if wrong.size:
            index = int(wrong[0])
            why = "is not an RFC 3339 time with a zone" if times[index] == MALFORMED else "is not between 1970 and 2262"
            self._refuse(index, "timestamp", f'"{cells[index]}" {why}', "Write it like 2026-11-22T01:02:03.5Z.")
        return times

    def _names(self, cells: Sequence[str], column: str, *, empty: bool = False) -> list[str]:
        names = [intern(cell.strip()) for cell in cells]
        if not empty and "" in names:
            self._refuse(names.index(""), column, "is empty", "Every row needs it.")
        longest = max(names, key=len)
        if len(longest) > MAX_NAME:
            self._refuse(names.index(longest), column, f"is longer than {MAX_NAME} characters", "Shorten it.")
        return names

    def _flags(self, cells: Sequence[str]) -> NDArray[np.bool_]:
        for index, cell in enumerate(cells):
            if cell.strip() not in ("0", "1"):
                self._refuse(index, EVALUATE, f'"{cell}" is neither 0 nor 1', "Write 0 for a warm-up row, else 1.")
        return np.array([cell.strip() == "1" for cell in cells], dtype=np.bool_)

    def _numbers(self, cells: Sequence[str], column: str) -> NDArray[np.float64]:
        text = "".join(cells)
        try:
            if "_" in text or not text.isascii():  # Python's own numbers may look so; those of files do not
                raise ValueError(text)
            numbers = np.array([float(cell) if cell else math.nan for cell in cells])
        except ValueError:
            numbers = np.array([self._number(index, cell, column) for index, cell in enumerate(cells)])
        infinite = np.flatnonzero(np.isinf(numbers))
        if infinite.size:
            index = int(infinite[0])
            self._refuse(
                index, column, f'"{cells[index]}" is not finite', "Leave the cell empty where a reading is missing."
            )
        return numbers

    def _number(self, index: int, cell: str, column: str) -> float:
        text = cell.strip()
        try:
            if "_" in text or not text.isascii():
                raise ValueError(text)
            return float(text) if text else math.nan
        except ValueError:
            self._refuse(index, column, f'"{cell}" is not a number', "Leave the cell empty where a reading is missing.")

    def _refuse(self, index: int, column: str, what: str, hint: str) -> NoReturn:
        raise InputFileError(f"{self.path}, line {self.lines[index]}, column {column}: {what}.", hint=hint)
