"""Recordings as one stream."""

from __future__ import annotations

import numpy as np
import pytest

from stream_ad.errors import InputFileError
from stream_ad.evaluation.backtest.stream import Stream
from tests.support.recordings import recording


def test_files_are_merged_by_time_and_keep_their_order():
    """Rows of several files come in the order of time; a clock that goes back moves no row before its neighbours."""
    first = recording(["normal"] * 4, times_s=[0, 10, 3, 20], stem="first")
    second = recording(["normal"] * 2, times_s=[5, 15], stem="second", sensors=["b", "b"])
    stream = Stream([first, second], warmup=0, default_warmup=0)
    ids = stream.event_ids(np.arange(6))
    assert ids == ["first-1", "second-1", "first-2", "first-3", "second-2", "first-4"]
    assert stream.nth.tolist() == [0, 0, 1, 2, 1, 3]
    assert (stream.locate(4).recording.stem, stream.locate(4).row) == ("second", 1)


def test_files_with_other_features_keep_their_own():
    """Each event carries the features of its file, sorted by name; as a table, what a file lacks is missing."""
    first = recording(["normal"], values=[[1, 2]], features=("b", "a"), stem="first")
    second = recording(["leak"], values=[[3, 4]], features=("c", "a"), stem="second", times_s=[9])
    stream = Stream([first, second], warmup=0, default_warmup=0)
    blocks = stream.events(0, 2).blocks
    assert [(block.features, block.rows.tolist(), block.values.tolist()) for block in blocks] == [
        (("a", "b"), [0], [[2.0, 1.0]]),
        (("a", "c"), [1], [[4.0, 3.0]]),
    ]
    np.testing.assert_array_equal(stream.values(0, 2), [[2, 1, np.nan], [4, np.nan, 3]])
    assert stream.classes == ["normal", "leak"]


def test_what_is_evaluated():
    """Evaluated: what the file says, else what follows the warm-up; always after an explicit one; never unlabelled."""
    labels = ["normal", "normal", None, "leak", "normal"]
    says = recording(labels, evaluate=[0, 1, 1, 1, 1])
    silent = recording(labels)
    sensors = recording(labels, sensors=["a", "b", "a", "b", "a"])
    assert Stream([says], warmup=None, default_warmup=3).evaluated.tolist() == [False, True, False, True, True]
    assert Stream([silent], warmup=None, default_warmup=3).evaluated.tolist() == [False, False, False, True, True]
    assert Stream([says], warmup=4, default_warmup=0).evaluated.tolist() == [False] * 4 + [True]
    assert Stream([sensors], warmup=1, default_warmup=0).evaluated.tolist() == [False, False, False, True, True]


def test_two_files_of_one_name_are_refused():
    """Files whose rows would have the same ids are refused."""
    with pytest.raises(InputFileError, match="tiny"):
        Stream([recording(["normal"]), recording(["normal"])], warmup=0, default_warmup=0)
