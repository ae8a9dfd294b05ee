"""Promises of the check of docstrings: what counts as missing a docstring, or the shapes of arrays."""

from __future__ import annotations

from tools.check_docstrings import examine, report

SOURCE = '''
def described():
    """Do something."""

def bare():
    pass

def _private():
    pass

class Public:
    def method(self): ...

    @property
    def size(self):
        """How large."""

    @size.setter
    def size(self, size): ...

    @override
    def inherited(self): ...

    def _private(self): ...

class _Private:
    def method(self): ...

def with_shape(x: NDArray[np.float64]) -> None:
    """Take (N, F) readings."""

def with_a_comment(
    x: torch.Tensor,  # (N,)
) -> None:
    """Take readings."""

def without(rows: list[int], x: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Take rows (not the shape), and give some."""

def gives(rows: list[int]) -> np.ndarray:
    def inner(): ...
'''


def test_findings():
    """Public functions and methods count, once; a shape may be in the docstring or beside an annotation."""
    tally = examine(SOURCE, "a.py")
    assert [finding.split()[1] for finding in tally.undescribed] == ["bare", "method", "gives"]
    assert [finding.split()[1] for finding in tally.shapeless] == ["without", "gives"]
    assert (tally.functions, tally.arrays) == (8, 4)
    assert tally.undescribed[0] == "a.py:5 bare"


def test_shares_by_package():
    """The report gives the shares of each package and of all, and the number of findings of each file."""
    empty = examine("", "shard/b.py")
    lines = list(report({"detector/a.py": examine(SOURCE, "a.py"), "shard/b.py": empty}))
    assert lines[1].split() == ["detector", "8", "38%", "4", "50%"]
    assert lines[2].split() == ["shard", "0", "0%", "0", "0%"]
    assert lines[3].split() == ["all", "8", "38%", "4", "50%"]
    assert [line.split() for line in lines[6:]] == [["3", "2", "detector/a.py"]]
