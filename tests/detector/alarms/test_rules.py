"""Promises of overrides: which budget a sensor has, and which rules its features."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ad.detector.alarm_config import AlarmsConfig
from stream_ad.detector.alarms.rules import AlarmRules, Budget

WEEK_NS = 7 * 86_400 * 1_000_000_000
NAMES = ("a", "ab", "b")
PATTERNS = st.sampled_from(["*", "a", "a*", "b", "[ab]", "c"])
RULES = st.fixed_dictionaries(
    {},
    optional={
        "ignore": st.booleans(),
        "direction": st.sampled_from(["above", "below", "both"]),
        "min_deviation": st.sampled_from([0, 2.5, "5 %"]),
    },
)
OVERRIDES = st.lists(
    st.fixed_dictionaries(
        {"sensors": PATTERNS},
        optional={
            "false_incidents": st.sampled_from([0.5, 2.0]),
            "per": st.sampled_from(["day", "100 events"]),
            "features": st.dictionaries(PATTERNS, RULES, max_size=3),
        },
    ),
    max_size=4,
)


def rules_from(**alarms) -> AlarmRules:
    return AlarmRules(AlarmsConfig.model_validate(alarms))


def test_without_overrides():
    """Without overrides every sensor has the budget of the section, and no feature has a rule."""
    rules = rules_from()
    assert rules.budget_of("a") == Budget(1.0, None, WEEK_NS)
    assert rules.rules_of("a", ("x",)) is None
    assert rules_from(per="10000 events").budget_of("a") == Budget(1.0, 10_000, None)


def test_the_first_that_sets_a_thing_decides_it():
    """Count and period of a budget are decided one by one, each by the first override that sets it."""
    rules = rules_from(
        overrides=[
            {"sensors": "press-*", "false_incidents": 3},
            {"sensors": "press-1", "false_incidents": 9, "per": "1000 events"},
        ]
    )
    assert rules.budget_of("press-1") == Budget(3, 1000, None)
    assert rules.budget_of("press-2") == Budget(3, None, WEEK_NS)
    assert rules.budget_of("Press-1") == Budget(1, None, WEEK_NS)


def test_rules_of_features():
    """Rules are arrays in the order of the features, which nobody can change for the others that have them."""
    features = {
        "temp": {"direction": "above", "min_deviation": 2},
        "t*": {"direction": "below", "ignore": True},
        "vib": {"min_deviation": "5 %"},
    }
    rules = rules_from(overrides=[{"sensors": "*", "features": features}])
    resolved = rules.rules_of("a", ("tau", "temp", "vib", "x"))
    assert resolved.ignore.tolist() == [True, True, False, False]
    assert resolved.above_only.tolist() == [False, True, False, False]
    assert resolved.below_only.tolist() == [True, False, False, False]
    assert resolved.least_absolute.tolist() == [0, 2, 0, 0]
    assert resolved.least_share.tolist() == [0, 0, 0.05, 0]
    assert rules.rules_of("b", ("tau", "temp", "vib", "x")) is resolved
    assert rules.rules_of("a", ("x",)) is None
    with pytest.raises(ValueError, match="read-only"):
        resolved.ignore[0] = False


def first_set(overrides, name, feature, key, default):
    """Return what the first override, and in it the first pattern, sets."""
    for override in overrides:
        if fnmatchcase(name, override["sensors"]):
            if feature is None and key in override:
                return override[key]
            for pattern, rule in override.get("features", {}).items():
                if feature is not None and fnmatchcase(feature, pattern) and key in rule:
                    return rule[key]
    return default


@given(OVERRIDES)
def test_overrides_are_those_of_a_plain_search(overrides):
    """For any overrides, the answers are those of a search from the first to the last."""
    rules = rules_from(overrides=overrides)
    for name in NAMES:
        per = first_set(overrides, name, None, "per", "week")
        count = first_set(overrides, name, None, "false_incidents", 1.0)
        nanoseconds = {"week": WEEK_NS, "day": WEEK_NS // 7, "100 events": None}[per]
        assert rules.budget_of(name) == Budget(count, 100 if nanoseconds is None else None, nanoseconds)
        resolved = rules.rules_of(name, NAMES)
        for i, feature in enumerate(NAMES):
            direction = first_set(overrides, name, feature, "direction", "both")
            least = first_set(overrides, name, feature, "min_deviation", 0)
            expected = (
                first_set(overrides, name, feature, "ignore", False),
                direction == "above",
                direction == "below",
                *((0.0, 0.05) if least == "5 %" else (least, 0.0)),
            )
            if resolved is None:
                assert not any(expected)
            else:
                arrays = resolved.ignore, resolved.above_only, resolved.below_only
                arrays += resolved.least_absolute, resolved.least_share
                assert tuple(np.array([array[i] for array in arrays])) == expected
