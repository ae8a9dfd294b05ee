"""Numba's on-disk cache of compiled kernels, invalidated when any module that a kernel depends on changes.

Numba itself checks only the file that defines a kernel. But the machine code also contains the kernels that it calls
and the constants that it uses, which other files may define: after an upgrade of one of those the old code would still
run, and two workers would not give the same scores.
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
    """Numba's cache of a single function.

    Raises:
        RuntimeError: There is no folder that the cache can be written to.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._cache_file._source_stamp = stamp(Path(function.__code__.co_filename))  # noqa: SLF001


@cache
def stamp(module: Path) -> str:
    """Return a hash of the source of a module of this package and of every module of the package that it imports."""
    digests: dict[Path, bytes] = {}
    waiting = [module]
    while waiting:
        path = waiting.pop()
        if path not in digests:
            digests[path], imports = _digest_and_imports(path)
            waiting += imports
    return hashlib.sha256(b"".join(digests[path] for path in sorted(digests))).hexdigest()


@cache
def _digest_and_imports(path: Path) -> tuple[bytes, list[Path]]:
    text = path.read_bytes()
    return hashlib.sha256(text).digest(), imported(text)


def imported(text: bytes) -> list[Path]:
    """Return the files of this package that a module with this source imports.

    Only ``from stream_ad... import`` is recognised: it is the only form that the package uses.
    """
    candidates = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            module = PACKAGE.joinpath(*(node.module or "").split(".")[1:])
            candidates += [module.with_suffix(".py"), *((module / name.name).with_suffix(".py") for name in node.names)]
    return [path for path in candidates if path.is_file()]
