"""Count public functions without a docstring, and functions on arrays without the shapes of these.

    python -m tools.check_docstrings           shares by package, and the files with findings
    python -m tools.check_docstrings --list    every finding with its line

Exits with 1 when the share of either exceeds LIMIT. A function is public when its name, and that of the class it is in,
does not begin with an underscore. A shape, such as ``(N,)`` or ``(N, F)``, is in the docstring, or in a comment
between ``def`` and the body.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "stream_ad"
LIMIT = 0.05

Function = ast.FunctionDef | ast.AsyncFunctionDef

_SHAPE = re.compile(r"\(\s*[A-Za-z0-9][\w+*/ -]*,[^()]*\)")
_ARRAY = re.compile(r"\b(NDArray|ndarray|Tensor)\b")
_SELF_EVIDENT = {"override", "overload"}
"""Decorators of functions that are described where they are first declared."""


@dataclass
class Tally:
    """Public functions of a module or package, and those that lack a docstring or shapes."""

    functions: int = 0
    arrays: int = 0
    undescribed: list[str] = field(default_factory=list)
    shapeless: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.functions += other.functions
        self.arrays += other.arrays
        self.undescribed += other.undescribed
        self.shapeless += other.shapeless

    @property
    def shares(self) -> tuple[float, float]:
        """Return the share of functions without a docstring, and of functions on arrays without shapes."""
        return len(self.undescribed) / max(self.functions, 1), len(self.shapeless) / max(self.arrays, 1)


def examine(source: str, name: str) -> Tally:
    """Count the functions of one module.

    Args:
        source: Text of the module.
        name: Name of the module in findings, before the line number.
    """
    tally, lines = Tally(), source.splitlines()
    for function in _public_functions(ast.parse(source)):
        finding = f"{name}:{function.lineno} {function.name}"
        tally.functions += 1
        docstring = ast.get_docstring(function) or ""
        if not docstring:
            tally.undescribed.append(finding)
        if _handles_arrays(function):
            tally.arrays += 1
            if not _SHAPE.search(docstring) and not _SHAPE.search(_comments(function, lines)):
                tally.shapeless.append(finding)
    return tally


def _public_functions(scope: ast.Module | ast.ClassDef) -> Iterator[Function]:
    for node in scope.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public_functions(node)
        elif isinstance(node, Function) and not node.name.startswith("_") and not _is_self_evident(node):
            yield node


def _is_self_evident(function: Function) -> bool:
    for decorator in function.decorator_list:
        name = ast.unparse(decorator).rpartition(".")[2]
        if name in _SELF_EVIDENT | {"setter"}:
            return True
    return False


def _handles_arrays(function: Function) -> bool:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    annotations = [argument.annotation for argument in every if argument is not None] + [function.returns]
    return any(_ARRAY.search(ast.unparse(annotation)) for annotation in annotations if annotation is not None)


def _comments(function: Function, lines: list[str]) -> str:
    """Return the comments from ``def`` to the first line of the body."""
    header = lines[function.lineno - 1 : function.body[0].lineno - 1]
    return " ".join(line.partition("#")[2] for line in header)


def report(tallies: Mapping[str, Tally]) -> Iterator[str]:
    """Yield a table of shares by package, and below it the number of findings by file.

    Args:
        tallies: Tally by path of the module, relative to the package.
    """
    packages: dict[str, Tally] = defaultdict(Tally)
    for path, tally in tallies.items():
        packages[path.partition("/")[0] if "/" in path else "(root)"].add(tally)
    yield f"{'PACKAGE':<14}{'FUNCTIONS':>10}{'NO DOCSTRING':>14}{'ON ARRAYS':>11}{'NO SHAPE':>10}"
    for name, tally in [*sorted(packages.items()), ("all", total(tallies))]:
        undescribed, shapeless = tally.shares
        yield f"{name:<14}{tally.functions:>10}{undescribed:>14.0%}{tally.arrays:>11}{shapeless:>10.0%}"
    yield ""
    yield f"{'NO DOCSTRING':>12}{'NO SHAPE':>10}  FILE"
    for path, tally in sorted(tallies.items()):
        if tally.undescribed or tally.shapeless:
            yield f"{len(tally.undescribed):>12}{len(tally.shapeless):>10}  {path}"


def total(tallies: Mapping[str, Tally]) -> Tally:
    """Return the sum of all tallies."""
    result = Tally()
    for tally in tallies.values():
        result.add(tally)
    return result


def main(*, listed: bool) -> int:
    """Print the report on the package and return the exit code."""
    tallies = {
        str(path.relative_to(PACKAGE)): examine(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
        for path in sorted(PACKAGE.rglob("*.py"))
    }
    lines = list(report(tallies))
    result = total(tallies)
    if listed:
        lines += ["", *(f"{finding}: no docstring" for finding in result.undescribed)]
        lines += [f"{finding}: no shape of its arrays" for finding in result.shapeless]
    if failed := max(result.shares) > LIMIT:
        lines += ["", f"More than {LIMIT:.0%} lack a docstring or a shape; `--list` names them."]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(listed="--list" in sys.argv[1:]))
