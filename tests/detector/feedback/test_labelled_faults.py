"""Labelled faults: what a sensor keeps of them, what sensors share, and how an alarm is compared with them."""

from __future__ import annotations

import numpy as np
import pytest

from stream_ad.detector.feedback.class_votes import MOST_SUSPECTED
from stream_ad.detector.feedback.fault_signature import PATTERN, SHAPE
from stream_ad.detector.feedback.labelled_faults import (
    NEAR,
    OWN_FAULTS,
    QUIET_EVENTS,
    SHARED_FAULTS,
    LabelledFaults,
)
from stream_ad.detector.row_store import NonsenseError

F = 4


def faults_of(sensors):
    faults = LabelledFaults(F)
    faults.append(sensors)
    return faults


def alike(*features):
    """Signatures of events that are off in these features."""
    pattern = np.zeros((len(features), PATTERN, F), np.float32)
    pattern[np.arange(len(features)), :, features] = 0.9
    return pattern, np.full((len(features), SHAPE), 0.5, np.float32)


def teach(faults, row, event_number, label, feature):
    event = np.array([row]), np.array([event_number]), np.array([label], np.int16), np.array([event_number])
    faults.learn(*event, alike(feature))


def asked(faults, row, event_number, feature):
    classes, probabilities = faults.suspect(np.array([row]), np.array([event_number]), alike(feature))
    return classes[0].tolist(), probabilities[0].tolist()


def test_near_labels_of_a_class_are_one_fault():
    """Labelled events of a class belong to one fault up to 64 events apart, with their mean signature."""
    faults = faults_of(1)
    for event_number, feature in ((100, 0), (100 + NEAR, 1), (101 + 2 * NEAR, 2)):
        teach(faults, 0, event_number, 1, feature)
    assert faults.rings.events[0, :3].tolist() == [2, 1, 0]
    np.testing.assert_allclose(faults.rings.pattern[0, 0, 0], [0.45, 0.45, 0, 0])


def test_a_frequent_class_does_not_push_out_a_rare_one():
    """Where a sensor has no room, the oldest fault of the class with most faults makes it."""
    faults = faults_of(1)
    teach(faults, 0, 0, 2, 0)
    for number in range(1, 3 * OWN_FAULTS):
        teach(faults, 0, number * 2 * NEAR, 1, 1)
    assert (faults.rings.label[0] == 2).sum() == 1
    assert (faults.rings.label[0] == 1).sum() == OWN_FAULTS - 1
    newest = [number * 2 * NEAR for number in range(2 * OWN_FAULTS + 1, 3 * OWN_FAULTS)]
    assert sorted(faults.rings.last_event[0][faults.rings.label[0] == 1].tolist()) == newest


def test_shared_faults_are_bounded_and_hold_every_class():
    """Of very many faults 256 are shared, a single one of a rare class among them."""
    faults = faults_of(20)
    teach(faults, 0, 0, 2, 0)
    for row in range(20):
        for number in range(1, OWN_FAULTS):
            teach(faults, row, number * 2 * NEAR, 1, 1)
    faults.publish()
    shared = faults.state("")["shared.label"]
    assert len(shared) == SHARED_FAULTS
    assert (shared == 2).sum() == 1


def test_what_others_were_taught_is_known_from_publishing_on():
    """A sensor without labels suspects nothing before ``publish``, and what another was taught after it."""
    faults = faults_of(2)
    teach(faults, 0, 10, 3, 1)
    assert faults.known(np.array([0, 1])).tolist() == [True, False]
    assert asked(faults, 1, 500, 1) == ([-1] * MOST_SUSPECTED, [0.0] * MOST_SUSPECTED)
    faults.publish()
    assert faults.known(np.array([0, 1])).all()
    assert asked(faults, 1, 1000, 1)[0] == [3, -1, -1]


def test_the_likelier_class_comes_first_and_probabilities_leave_a_share():
    """At most three classes are suspected, the most alike first, and their probabilities sum to less than 1."""
    faults = faults_of(1)
    for label in range(1, 5):
        teach(faults, 0, 1000 * label, label, label - 1)
    classes, probabilities = asked(faults, 0, 9000, 2)
    assert classes[0] == 3
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) < 1


def test_alarms_of_an_incident_are_averaged_and_those_of_the_next_are_not():
    """The signature of an incident is the mean of its alarms, and begins anew after 16 events without one."""
    faults = faults_of(1)
    teach(faults, 0, 10, 1, 0)
    asked(faults, 0, 100, 0)
    asked(faults, 0, 100 + QUIET_EVENTS, 1)
    np.testing.assert_allclose(faults.alarm_pattern[0, 0], [0.45, 0.45, 0, 0])
    asked(faults, 0, 101 + 2 * QUIET_EVENTS, 2)
    np.testing.assert_allclose(faults.alarm_pattern[0, 0], [0, 0, 0.9, 0], rtol=1e-6)


def test_state_is_restored_and_nonsense_refused():
    """Faults, own and shared, are those of the snapshot; shared arrays that do not match are refused."""
    faults = faults_of(2)
    teach(faults, 1, 10, 1, 0)
    faults.publish()
    arrays = {name: array.copy() for name, array in faults.state("x.").items()}
    restored = LabelledFaults(F)
    restored.load("x.", arrays)
    assert asked(restored, 0, 100, 0) == asked(faults, 0, 100, 0)
    arrays["x.shared.label"] = np.zeros(2, np.int16)
    with pytest.raises(NonsenseError, match="different lengths"):
        LabelledFaults(F).load("x.", arrays)


def test_a_feature_whose_position_another_takes_is_forgotten():
    """A replaced feature no longer counts in own or shared faults; the others do."""
    faults = faults_of(1)
    teach(faults, 0, 10, 1, 0)
    teach(faults, 0, 500, 2, 1)
    faults.publish()
    faults.reset_feature(0, 0)
    faults.forget_shared(0)
    for name in ("rings.pattern", "shared.pattern"):
        pattern = faults.state("")[name]
        assert not pattern[..., 0].any()
        assert pattern[..., 1].any()
