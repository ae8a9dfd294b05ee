"""What every recording has, whatever kind of file it comes from: its columns, and the rules for their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_ad.errors import InputFileError
from stream_ad.records.schemas import MAX_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

NAMED_COLUMNS = ("timestamp", "sensor_id", "label")
EVALUATE = "evaluate"
ENDINGS = (".gz", ".csv", ".parquet", ".pq")


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A recorded stream, as columns, in the order of the file."""

    stem: str
    """File name without folder and endings; event ids are ``<stem>-<row number>`` counted from 1."""
    times_ns: NDArray[np.int64]  # (N,) nanoseconds since the epoch; need not rise
    sensor_ids: list[str]
    labels: list[str | None]  # None: nobody knows
    evaluate: NDArray[np.bool_]  # (N,) all True when the file does not say
    features: tuple[str, ...]  # in the order of the file
    values: NDArray[np.float64]  # (N, F) NaN where a reading is missing

    def __len__(self) -> int:
        return len(self.sensor_ids)

    def event_id(self, row: int) -> str:
        """Return the id of the event that is made from the row at index ``row`` (from 0)."""
        return f"{self.stem}-{row + 1}"


def stem_of(name: str) -> str:
    """Return a file's name without its endings."""
    for ending in ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            name = name[: -len(ending)]
    return name


def parse_columns(texts: Iterable[str]) -> dict[str, str]:
    """Parse texts such as ``timestamp=ts`` into a mapping from our names to the file's.

    Raises:
        ValueError: One is not of this form, or names a column that we do not have.

    >>> parse_columns(["timestamp=ts", "label=fault"])
    {'timestamp': 'ts', 'label': 'fault'}
    """
    columns: dict[str, str] = {}
    for text in texts:
        name, equals, column = (part.strip() for part in text.partition("="))
        if not equals or not column:
            raise ValueError(f'"{text}" is not of the form NAME=COLUMN')
        if name not in (*NAMED_COLUMNS, EVALUATE):
            raise ValueError(f'"{name}" is none of {", ".join((*NAMED_COLUMNS, EVALUATE))}')
        columns[name] = column
    return columns


def named(header: Sequence[str], columns: Mapping[str, str] | None, where: str) -> list[str]:
    """Return the columns of a file by our names.

    Args:
        header: Its own names.
        columns: Its name for each of ours that differs.
        where: The place of the header, for messages.

    Raises:
        InputFileError: One is missing, has no name, stands there twice, or there is no feature.
    """
    listed = ", ".join(header[:8]) + (", …" if len(header) > 8 else "")
    ours = {column: name for name, column in (columns or {}).items()}
    if absent := [column for column in ours if column not in header]:
        raise InputFileError(
            f"{where}: column {', '.join(absent)} is missing; found: {listed}.",
            hint="Check the names that were given to --map.",
        )
    names = [ours.get(name, name) for name in header]
    missing = [name for name in NAMED_COLUMNS if name not in names]
    if missing:
        raise InputFileError(
            f"{where}: column {', '.join(missing)} is missing; found: {listed}.",
            hint="The first line names the columns, separated by commas: timestamp, sensor_id, label, features."
            " `backtest` takes other names: --map timestamp=ts.",
        )
    for index, name in enumerate(names):
        if not name or len(name) > MAX_NAME:
            what = "has no name" if not name else f"has a name longer than {MAX_NAME} characters"
            raise InputFileError(f"{where}: column {index + 1} {what}.", hint="Name it or remove it.")
        if name in names[:index]:
            raise InputFileError(f"{where}: column {name} stands there twice.", hint="Rename or remove one of them.")
    if len(names) == len({*NAMED_COLUMNS, EVALUATE} & set(names)):
        raise InputFileError(f"{where}: there is no feature.", hint="Add a column for each reading.")
    return names


def feature_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that are readings."""
    return tuple(name for name in names if name not in (*NAMED_COLUMNS, EVALUATE))
