"""Finds names and words that the house has given up: see the table in CONTRIBUTING.md.

    python -m tools.check_names           the number of findings by file
    python -m tools.check_names --list    every finding with its line

Ends with 1 when there is any. Where an old word must stay, tools/names_allowed.toml says why, by file.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = Path(__file__).with_name("names_allowed.toml")

VARIABLES = frozenset({"one", "some", "found", "known", "told", "mine", "here", "there"})
"""They say nothing of what they hold."""

CLASSES = frozenset(
    """
    Arrived BatchProducer Flight Harm Head InFlight Inbox Journal Judged Landed LoadedShard Lookup Mark Note OwnedShard
    Patience Pending Places PlainConsumer Positions RdConsumer RdProducer Replayed Run Saving Side Silence SnapshotPart
    Sourced Stored Surroundings ThreadFlight Verdicts Watch _Lane
    """.split()  # noqa: SIM905 -- thirty lines otherwise
)
"""Names of before the packages; what each is called now stands in docs/glossary.md."""

WORDS = re.compile(r"verdict|judge?ment", re.IGNORECASE)
"""A person gives a label."""

TEXTS = {".css", ".html", ".js", ".json", ".md", ".py", ".sh", ".svg", ".toml", ".yaml", ".yml", ""}
"""Suffixes of the files that are read for words."""


class Finding(NamedTuple):
    """One place with a name or word that should not be there."""

    kind: str
    """``variable``, ``class`` or ``word``."""
    line: int
    text: str


def in_python(source: str) -> Iterator[Finding]:
    """The variables and classes of a module that bear a forbidden name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name in CLASSES:
            yield Finding("class", node.lineno, node.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("stream_ad", "tests")):
            yield from (Finding("class", node.lineno, name.name) for name in node.names if name.name in CLASSES)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in VARIABLES:
            yield Finding("variable", node.lineno, node.id)
        elif isinstance(node, ast.arg) and node.arg in VARIABLES:
            yield Finding("variable", node.lineno, node.arg)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name in VARIABLES:
            yield Finding("variable", node.lineno, node.name)


def in_text(text: str) -> Iterator[Finding]:
    """The forbidden words of any text: identifiers, strings, comments, prose."""
    for number, line in enumerate(text.splitlines(), 1):
        for match in WORDS.finditer(line):
            yield Finding("word", number, match.group())


def examine(path: str, text: str, allowed: dict[str, dict[str, str]]) -> list[Finding]:
    """What one file should not say.

    Args:
        path: Of the file, from the top of the tree.
        text: What stands in it.
        allowed: Reason by kind of finding by path; a path that ends in ``/`` stands for a folder.
    """
    findings = [*in_text(text), *in_text(path)]
    if path.endswith(".py"):
        findings += in_python(text)
    excused = {kind for name, kinds in allowed.items() if _covers(name, path) for kind in kinds}
    return sorted((finding for finding in findings if finding.kind not in excused), key=lambda finding: finding.line)


def _covers(name: str, path: str) -> bool:
    return path.startswith(name) if name.endswith("/") else path == name


def project_texts() -> Iterator[tuple[str, str]]:
    """Path and content of every text file that is or will be under version control."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)  # noqa: S603 -- our own words
    for name in sorted(filter(None, listed.stdout.decode().split("\0"))):
        path = ROOT / name
        if path.suffix in TEXTS and path.is_file():
            yield name, path.read_text(encoding="utf-8")


def report(findings: dict[str, list[Finding]], *, listed: bool) -> Iterator[str]:
    """The findings by file, most of them last, and their sum; or each of them by its line."""
    kinds = ("word", "variable", "class")
    if listed:
        for path, listing in findings.items():
            yield from (f"{path}:{finding.line} {finding.kind} {finding.text}" for finding in listing)
        yield ""
    yield "".join(f"{kind.upper():>10}" for kind in kinds) + "  FILE"
    every: Counter[str] = Counter()
    for path, listing in sorted(findings.items(), key=lambda item: len(item[1])):
        counts = Counter(finding.kind for finding in listing)
        every += counts
        yield "".join(f"{counts[kind]:>10}" for kind in kinds) + f"  {path}"
    yield "".join(f"{every[kind]:>10}" for kind in kinds) + "  all"


def main(arguments: Iterable[str]) -> int:
    """Print the findings of the whole tree; the exit code."""
    allowed = tomllib.loads(ALLOWED.read_text(encoding="utf-8"))
    by_file = {path: findings for path, text in project_texts() if (findings := examine(path, text, allowed))}
    sys.stdout.writelines(f"{line}\n" for line in report(by_file, listed="--list" in arguments))
    return int(bool(by_file))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
