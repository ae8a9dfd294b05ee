"""Print the packages of stream_ad by layer, and which package imports which: `make layers`.

The layers are those of the contract in pyproject.toml, which `make check` enforces. A package may import from the
layers below its own; packages in one row do not import each other.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "stream_ad"


def layers() -> list[list[str]]:
    """Return the packages of each layer, the highest layer first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = (contract for contract in contracts if contract["type"] == "layers")
    return [[name.strip() for name in row.split("|")] for row in contract["layers"]]


def arrows() -> dict[str, list[str]]:
    """Return the packages that each package imports directly; both in the order of the layers."""
    graph = grimp.build_graph(PACKAGE, include_external_packages=False, cache_dir=None)
    imports: dict[str, set[str]] = defaultdict(set)
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            if (package := _package(module)) != _package(imported):
                imports[package].add(_package(imported))
    order = [package for row in layers() for package in row]
    return {package: [name for name in order if name in imports[package]] for package in order}


def _package(module: str) -> str:
    """Return the package directly below stream_ad that a module belongs to; "" for stream_ad itself."""
    return module.removeprefix(PACKAGE).removeprefix(".").partition(".")[0]


def text() -> str:
    """Return a line for each package, with a blank line between layers."""
    imports = arrows()
    width = max(map(len, imports))
    rows = ("\n".join(f"{name:<{width}}  ->  {', '.join(imports[name]) or '-'}" for name in row) for row in layers())
    return "\n\n".join(rows)


def mermaid() -> str:
    """Return the packages as a Mermaid flowchart, higher layers first.

    Arrows that follow from others are left out: where a package imports another both directly and through a third,
    only the path through the third is drawn.
    """
    imports = arrows()
    below: dict[str, set[str]] = {}
    for name in reversed(imports):  # the lowest layer first
        below[name] = {*imports[name]}.union(*(below[imported] for imported in imports[name]))
    lines = ["flowchart TB"]
    for name, imported in imports.items():
        direct = [other for other in imported if not any(other in below[third] for third in imported)]
        lines += [f"    {name} --> {other}" for other in direct]
    return "\n".join(lines)


if __name__ == "__main__":
    print(text())  # noqa: T201 -- the purpose of the script
