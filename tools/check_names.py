"""Find names and words that are no longer used: see the table in CONTRIBUTING.md.

    python -m tools.check_names           the number of findings by file
    python -m tools.check_names --list    every finding with its line

Exits with 1 when there are any. Where an old word must stay, tools/names_allowed.toml says why, by file.
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
"""They do not say what they hold."""

CLASSES = frozenset(
    """
    Arrived BatchProducer Flight Harm Head InFlight Inbox Journal Judged Landed LoadedShard Lookup Mark Note OwnedShard
    Patience Pending Places PlainConsumer Positions RdConsumer RdProducer Replayed Run Saving Side Silence SnapshotPart
    Sourced Stored Surroundings ThreadFlight Verdicts Watch _Lane
    """.split()  # noqa: SIM905 -- thirty lines otherwise
)
"""Former names of classes; docs/glossary.md has the present ones."""

WORDS = re.compile(r"verdict|judge?ment", re.IGNORECASE)
"""What a person says about an event is a label."""

TEXTS = {".css", ".html", ".js", ".json", ".md", ".py", ".sh", ".svg", ".toml", ".yaml", ".yml", ""}
"""Suffixes of the files that are searched for words."""


class Finding(NamedTuple):
    """A forbidden name or word in a file."""

    kind: str
    """``variable``, ``class`` or ``word``."""
    line: int
    text: str


def in_python(source: str) -> Iterator[Finding]:
    """Yield the variables and classes of a module with a forbidden name."""
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
    """Yield the forbidden words of a text: in identifiers, strings, comments, prose."""
    for number, line in enumerate(text.splitlines(), 1):
        for match in WORDS.finditer(line):
            yield Finding("word", number, match.group())


def examine(path: str, text: str, allowed: dict[str, dict[str, str]]) -> list[Finding]:
    """Return the findings of one file, without the allowed ones.

    Args:
        path: Path of the file from the top of the tree.
        text: Content of the file.
        allowed: Reason by kind of finding by path; a path that ends in ``/`` is a folder.
    """
    findings = [*in_text(text), *in_text(path)]
    if path.endswith(".py"):
        findings += in_python(text)
    excused = {kind for name, kinds in allowed.items() if _covers(name, path) for kind in kinds}
    return sorted((finding for finding in findings if finding.kind not in excused), key=lambda finding: finding.line)


def _covers(name: str, path: str) -> bool:
    return path.startswith(name) if name.endswith("/") else path == name


def project_texts() -> Iterator[tuple[str, str]]:
    """Yield path and content of every text file that is or will be under version control."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)  # noqa: S603 -- a fixed command
    for name in sorted(filter(None, listed.stdout.decode().split("\0"))):
        path = ROOT / name
        if path.suffix in TEXTS and path.is_file():
            yield name, path.read_text(encoding="utf-8")


def report(findings: dict[str, list[Finding]], *, listed: bool) -> Iterator[str]:
    """Yield the number of findings by file, the most last, and their sum; before it, if listed, each with its line."""
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
    """Print the findings of the whole tree and return the exit code."""
    allowed = tomllib.loads(ALLOWED.read_text(encoding="utf-8"))
    by_file = {path: findings for path, text in project_texts() if (findings := examine(path, text, allowed))}
    sys.stdout.writelines(f"{line}\n" for line in report(by_file, listed="--list" in arguments))
    return int(bool(by_file))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
