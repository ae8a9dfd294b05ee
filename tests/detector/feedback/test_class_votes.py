"""Votes of labelled faults: how far likeness is trusted, beside how frequent the classes are."""

from __future__ import annotations

import numpy as np
import pytest

from stream_ad.detector.feedback.class_votes import FIRST_TRUST, left_out_trust
from stream_ad.detector.feedback.fault_signature import PATTERN, SHAPE

F, OF_EACH, CLASSES = 8, 12, 4
LABELS = np.tile(np.arange(1, CLASSES + 1, dtype=np.int16), OF_EACH)


def faults(features, seed=0):
    """Faults of four classes, each off in the feature given for it, with some noise."""
    pattern = np.random.default_rng(seed).normal(scale=0.1, size=(len(LABELS), PATTERN, F)).astype(np.float32)
    pattern[np.arange(len(LABELS)), :, features] += 0.8
    return LABELS, pattern, np.full((len(LABELS), SHAPE), 0.5, np.float32)


def test_likeness_is_trusted_where_classes_look_alike():
    """Where each class has a feature of its own, likeness is trusted more than before anything was known."""
    assert left_out_trust(faults(LABELS)) > FIRST_TRUST


@pytest.mark.parametrize("seed", range(5))
def test_likeness_is_trusted_less_where_names_say_nothing(seed):
    """Where a class is off in any feature, likeness is trusted less than before anything was known."""
    random = np.random.default_rng(seed)
    assert left_out_trust(faults(random.integers(F, size=len(LABELS)))) < FIRST_TRUST


def test_without_faults_the_trust_is_that_of_the_beginning():
    """Where nothing is known, or a single fault, nothing was left out to learn the trust from."""
    label, pattern, shape = faults(LABELS)
    for size in (0, 1):
        assert left_out_trust((label[:size], pattern[:size], shape[:size])) == FIRST_TRUST
