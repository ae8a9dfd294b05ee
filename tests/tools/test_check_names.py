"""Promises of the check of names: which names and words it finds, and which it allows."""

from __future__ import annotations

import pytest

from tools.check_names import Finding, examine, report


@pytest.mark.parametrize(
    "source",
    [
        "one = 1",
        "for one in rows: pass",
        "[one.x for one in rows]",
        "def f(one): pass",
        "with f() as one: pass",
        "try: pass\nexcept E as one: pass",
        "a, (one, b) = c",
        "if (one := 1): pass",
        "lambda one: 1",
    ],
)
def test_variables(source):
    """A forbidden name is found wherever a variable is bound."""
    (finding,) = examine("a.py", source, {})
    assert (finding.kind, finding.text) == ("variable", "one")


@pytest.mark.parametrize(
    "source", ["row.one = 1", "f(one=1)", "print(one)", "# one of them", "'one'", "class one: pass"]
)
def test_what_is_no_variable(source):
    """Attributes, keywords of calls, uses, comments and strings do not bind a variable."""
    assert examine("a.py", source, {}) == []


def test_classes():
    """An old name of a class is found where the class is defined or imported from the project, not elsewhere."""
    source = "from rich.x import Run\nfrom stream_ad.shard.step import Run\nclass Saving: pass\nRun()"
    assert examine("a.py", source, {}) == [Finding("class", 2, "Run"), Finding("class", 3, "Saving")]


def test_words():
    """The old word for a label is found in names, texts, comments and prose, and in the name of a file."""
    source = 'verdicts = "a Verdict"  # a judgment\n'
    assert [finding.text for finding in examine("a.py", source, {})] == ["verdict", "Verdict", "judgment"]
    assert examine("verdicts.md", "A label.", {}) == [Finding("word", 1, "verdict")]
    assert examine("a.md", "A label.", {}) == []


def test_the_list_of_exceptions():
    """A file or folder is excused for one kind of finding and no other."""
    source = "one = 'verdict'"
    assert [finding.kind for finding in examine("a/b.py", source, {"a/b.py": {"word": "why"}})] == ["variable"]
    assert [finding.kind for finding in examine("a/b.py", source, {"a/": {"variable": "why"}})] == ["word"]
    assert len(examine("a/b.py", source, {"a": {"word": "why"}, "b/": {"word": "why"}})) == 2


def test_report():
    """Findings are counted by file and kind, or listed by line."""
    findings = {"a.py": examine("a.py", "one = 'verdict'", {})}
    assert list(report(findings, listed=False))[1:] == [
        "         1         1         0  a.py",
        "         1         1         0  all",
    ]
    assert list(report(findings, listed=True))[:2] == ["a.py:1 word verdict", "a.py:1 variable one"]
