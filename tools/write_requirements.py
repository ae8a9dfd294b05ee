"""Print what the program needs at run time as pins, with the versions of this environment.

    python -m tools.write_requirements >build/requirements.txt

The development tools of the environment are left out, those of the extras that a worker may use (librdkafka, parquet)
are not: `make audit` and `make sbom` examine what is shipped.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

EXTRAS = ("librdkafka", "parquet")


def pins(names: Iterable[str], describe: Callable[[str], tuple[str, list[str]] | None]) -> list[str]:
    """Return everything that some packages need, without themselves, as ``name==version``, sorted.

    Args:
        names: Requirements to start from, such as ``stream-ad[parquet]``.
        describe: Returns version and requirements of a package by its name; None where it is not installed.
    """
    versions: dict[str, str] = {}
    roots = {canonicalize_name(Requirement(name).name) for name in names}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        description = describe(name)
        if description is None:
            continue  # for another platform, or not asked for
        versions[name], needs = description
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting.extend(_in_force(needs, extra))
    return sorted(f"{name}=={version}" for name, version in versions.items() if name not in roots)


def _in_force(needs: Iterable[str], extra: str) -> Iterator[Requirement]:
    for text in needs:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def installed(name: str) -> tuple[str, list[str]] | None:
    """Return version and requirements of a package of this environment, or None."""
    try:
        package = distribution(name)
    except PackageNotFoundError:
        return None
    return package.version, package.requires or []


if __name__ == "__main__":
    sys.stdout.writelines(f"{pin}\n" for pin in pins([f"stream-ad[{','.join(EXTRAS)}]"], installed))
