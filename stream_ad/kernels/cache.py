"""Where compiled kernels are kept: numba's cache, out of date as soon as anything that went into a kernel has changed.

Numba looks at the file of a kernel alone. But the machine code holds the kernels that it calls and the constants that
it names, from other files, too: after an upgrade of one of them the old code would run on, and two workers would not
give the same scores.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numba.core.caching import FunctionCache

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = Path(__file__).parents[1]


class KernelCache(FunctionCache):
    """Numba's cache of one function; RuntimeError where there is no folder for it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._cache_file._source_stamp = stamp(Path(function.__code__.co_filename))  # noqa: SLF001


@cache
def stamp(module: Path) -> str:
    """A hash of what stands in a module of this package, and in all that it imports of the package."""
    found: dict[Path, bytes] = {}
    waiting = [module]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path], imports = _look_at(path)
            waiting += imports
    return hashlib.sha256(b"".join(found[path] for path in sorted(found))).hexdigest()


@cache
def _look_at(path: Path) -> tuple[bytes, list[Path]]:
    text = path.read_bytes()
    return hashlib.sha256(text).digest(), imported(text)


def imported(text: bytes) -> list[Path]:
    """The files of this package that a module with this text imports; all of it says ``from stream_ad… import``."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            place = PACKAGE.joinpath(*(node.module or "").split(".")[1:])
            found += [place.with_suffix(".py"), *((place / name.name).with_suffix(".py") for name in node.names)]
    return [path for path in found if path.is_file()]
