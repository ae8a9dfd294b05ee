"""What labels add to the score of a stream without memory."""

from __future__ import annotations

import numpy as np
import pytest

from stream_ad.detector.features.scaler import SCALE_SD, Scaler
from stream_ad.detector.feedback.label_head import LEAST, MOST, MOST_GATE, RIDGE, RING, LabelHead, balanced
from stream_ad.detector.row_store import NO_SIDE_ROW

F = 4


def parts(sensors=1):
    head, scaler = LabelHead(F, capacity=1024), Scaler(F)
    head.append(sensors)
    scaler.append(sensors)
    scaler.count[:], scaler.var[:], scaler.scale[:] = 1000, 1.0, 1 / SCALE_SD
    return head, scaler


def draw(rng, count, *, feature=0, shift=0.0):
    readings = rng.normal(size=(count, F)).astype(np.float32)
    readings[:, feature] += shift
    return readings


def teach(head, scaler, normals, anomalies, *, row=0, batch=32):
    """All labelled, in batches."""
    readings = np.concatenate([normals, anomalies])
    wrong = np.arange(len(readings)) >= len(normals)
    order = np.random.default_rng(0).permutation(len(readings))
    for start in range(0, len(order), batch):
        sample = order[None, start : start + batch]
        head.learn(np.array([row]), readings[sample], np.zeros(sample.shape), ~wrong[sample], wrong[sample], scaler)


def odds(head, scaler, readings, row=0):
    scaled, _ = scaler.transform(np.array([row]), readings[None])
    return head.log_odds(np.array([row]), scaled.transpose(1, 0, 2))[:, 0]


CLOSED, OPEN = np.array([0.0]), np.array([MOST_GATE])


def test_silent_without_labels():
    """Labelled normals alone say nothing: the score stays what the errors make it."""
    head, scaler = parts()
    teach(head, scaler, draw(np.random.default_rng(1), 400), draw(np.random.default_rng(2), 0))
    assert head.gate_weight(np.array([0]), CLOSED) == 0


def test_silent_where_the_context_means_something():
    """On a stream with memory the head adds nothing, however much it was taught."""
    head, scaler = parts()
    rng = np.random.default_rng(1)
    teach(head, scaler, draw(rng, 400), draw(rng, 40, shift=3))
    assert head.gate_weight(np.array([0]), CLOSED) > 0.5
    assert head.gate_weight(np.array([0]), OPEN) == 0


def test_tells_known_anomalies_from_normals():
    """Labelled kinds of anomalies are separated from normals it never saw, within the limits of what may be added."""
    head, scaler = parts()
    rng = np.random.default_rng(1)
    teach(head, scaler, draw(rng, 400), draw(rng, 40, shift=2.5))
    normal, wrong = odds(head, scaler, draw(rng, 500)), odds(head, scaler, draw(rng, 500, shift=2.5))
    assert np.mean(normal[:, None] < wrong[None]) > 0.9
    for sample in (normal, wrong):
        assert (sample >= LEAST).all()
        assert (sample <= MOST).all()


def test_tells_what_no_line_can():
    """Anomalies inside the range of every single feature are recognised by their combination alone."""
    head, scaler = parts()
    rng = np.random.default_rng(1)

    def paired(count, sign):
        readings = draw(rng, count)
        readings[:, 1] = sign * readings[:, 0] + 0.3 * readings[:, 1]
        return readings

    teach(head, scaler, paired(500, 1), paired(200, -1))
    normal, wrong = odds(head, scaler, paired(500, 1)), odds(head, scaler, paired(500, -1))
    assert np.mean(normal[:, None] < wrong[None]) > 0.7


def test_attributes_to_the_broken_feature():
    """The broken feature has the largest share of what the head adds."""
    head, scaler = parts()
    rng = np.random.default_rng(1)
    teach(head, scaler, draw(rng, 400), draw(rng, 60, feature=2, shift=4))
    scaled, _ = scaler.transform(np.array([0]), draw(rng, 200, feature=2, shift=4)[None])
    attribute = head.attribute(np.zeros(200, np.int64), scaled[0])
    assert (attribute >= 0).all()
    assert np.mean(attribute.argmax(axis=1) == 2) > 0.9


def test_trust_grows_with_anomalies():
    """A few anomalies have little weight."""
    rng = np.random.default_rng(1)
    trust = []
    for number in (3, 10, 100):
        head, scaler = parts()
        teach(head, scaler, draw(rng, 300), draw(rng, number, shift=3))
        trust.append(head.trust[0])
    assert trust == sorted(trust)
    assert trust[0] < 0.5 < trust[2] < 1


def test_sensors_are_apart():
    """What one sensor is taught changes no other one, and a sensor does not depend on who learns beside it."""
    rng = np.random.default_rng(1)
    normals, anomalies = draw(rng, 200), draw(rng, 20, shift=3)
    (alone, scaler), (both, wide) = parts(), parts(2)
    teach(alone, scaler, normals, anomalies)
    teach(both, wide, normals, anomalies, row=1)
    assert both.trust[0] == 0
    fresh = draw(rng, 64)
    assert np.array_equal(odds(alone, scaler, fresh), odds(both, wide, fresh, row=1))
    assert np.array_equal(odds(alone, scaler, fresh)[:1], odds(alone, scaler, fresh[:1]))


def test_memory_is_bounded():
    """However many labels come, the head keeps the newest of each kind and no more."""
    head, scaler = parts()
    rng = np.random.default_rng(1)
    before = head.nbytes
    teach(head, scaler, draw(rng, 1), draw(rng, 1, shift=3))
    size = head.nbytes
    teach(head, scaler, draw(rng, 3 * RING), draw(rng, 2 * RING, shift=3))
    assert head.nbytes == size > before  # taken with the first label, and then no more
    assert head.normals[0] == 3 * RING + 1


def test_only_labelled_sensors_have_rings():
    """A sensor without labels takes none of the memory for them, and each keeps its own when another leaves."""
    head, scaler = parts(3)
    rng = np.random.default_rng(1)
    for row in (2, 0):
        teach(head, scaler, draw(rng, 300), draw(rng, 30, shift=3 + row), row=row)
    fresh, kept = draw(rng, 64), {}
    for row in (0, 2):
        kept[row] = odds(head, scaler, fresh, row=row)
    assert head.rings.size == 2
    kept_ring = head.rings.normal[head.side_row[2]].copy()
    head.remove(0)  # the last row takes its place
    assert head.rings.size == 1
    np.testing.assert_array_equal(head.rings.normal[head.side_row[0]], kept_ring)
    np.testing.assert_array_equal(odds(head, scaler, fresh, row=0), kept[2])
    assert head.side_row[1] == NO_SIDE_ROW


def test_the_order_in_which_sensors_learned_does_not_show():
    """The saved state is the same whichever sensor learned its labels first, and it restores the same heads."""
    rng = np.random.default_rng(1)
    taught = {row: (draw(rng, 300), draw(rng, 30, shift=3 + row)) for row in (0, 2)}
    states = []
    for order in ((0, 2), (2, 0)):
        head, scaler = parts(3)
        for row in order:
            teach(head, scaler, *taught[row], row=row)
        states.append(head.state("head."))
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)
    restored = LabelHead(F, capacity=1024)
    restored.load("head.", states[1])
    fresh = draw(rng, 64)
    for row in (0, 2):
        np.testing.assert_array_equal(odds(restored, scaler, fresh, row=row), odds(head, scaler, fresh, row=row))


def test_missing_readings_make_no_nan():
    """A sensor that lacks features has finite odds."""
    head, scaler = parts()
    rng = np.random.default_rng(1)
    normals, anomalies = draw(rng, 300), draw(rng, 30, shift=3)
    normals[:, 3], anomalies[:, 3] = np.nan, np.nan
    normals[::3, 1] = np.nan
    teach(head, scaler, normals, anomalies)
    assert np.isfinite(odds(head, scaler, normals)).all()
    assert head.trust[0] > 0


def test_a_new_feature_waits_for_a_new_fit():
    """A sensor with a new feature keeps its labels and is silent until the next one, when it is fitted again."""
    head, scaler = parts()
    rng = np.random.default_rng(1)
    teach(head, scaler, draw(rng, 300), draw(rng, 30, shift=3))
    wide, wide_scaler = LabelHead(F + 1, capacity=1024), Scaler(F + 1)
    wide.append(1)
    wide_scaler.append(1)
    wide_scaler.count[:], wide_scaler.var[:], wide_scaler.scale[:] = 1000, 1.0, 1 / SCALE_SD
    wide.copy_row(head, 0, positions=np.arange(F))
    assert wide.gate_weight(np.array([0]), CLOSED) == 0
    assert wide.anomalies[0] == 30
    readings = np.zeros((1, 1, F + 1), np.float32)
    wide.learn(np.array([0]), readings, np.zeros((1, 1)), np.array([[True]]), np.array([[False]]), wide_scaler)
    assert wide.gate_weight(np.array([0]), CLOSED) > 0


def test_wrong_labels_cost_little():
    """A wide table learns the true anomalies though a third of those labelled so are normal events."""
    rng, features = np.random.default_rng(1), 60
    head, scaler = LabelHead(features, capacity=1024), Scaler(features)
    head.append(1)
    scaler.append(1)
    scaler.count[:], scaler.var[:], scaler.scale[:] = 1000, 1.0, 1 / SCALE_SD

    def sample(count, shift):
        readings = rng.normal(size=(count, features)).astype(np.float32)
        readings[:, :8] += shift
        return readings

    teach(head, scaler, sample(500, 0), np.concatenate([sample(60, 1.2), sample(30, 0)]))
    normal, wrong = odds(head, scaler, sample(2000, 0)), odds(head, scaler, sample(1000, 1.2))
    assert np.mean(normal[:, None] < wrong[None]) > 0.94


def test_both_kinds_have_half_the_weight():
    """Normals and anomalies weigh alike however many there are, and what is not believed is not made up for."""
    y = np.arange(100) < 10
    weight = balanced(np.ones(100), y)
    assert weight[y].sum() == pytest.approx(20)
    assert weight[~y].sum() == pytest.approx(20)
    doubted = balanced(np.where(np.arange(100) < 5, 0.0, 1.0), y)
    assert doubted[:5].sum() == 0
    assert doubted[5] == pytest.approx(weight[5])
    assert doubted[~y].sum() == pytest.approx(10)


def test_kinds_of_weights_that_tell_nothing_are_kept_small():
    """Where a straight line tells all there is, |z| and the waves are held down, and the other way round."""
    rng = np.random.default_rng(1)
    for shift, spread, kind in ((2.0, 1.0, 0), (0.0, 4.0, 1)):
        head, scaler = parts()
        teach(head, scaler, draw(rng, 500), draw(rng, 200, shift=shift) * np.float32(spread))
        assert head.ridge[0].argmin() == kind
        assert head.ridge[0].min() <= RIDGE < head.ridge[0].max()


def test_keeps_what_it_added():
    """A labelled sensor keeps contributions for as many events as may still be labelled; others have none."""
    head = LabelHead(F, capacity=8)
    head.append(3)
    head.allocate(np.array([1]))
    rows, event_numbers = np.array([1, 0, 1, 2, 1]), np.array([3, 0, 4, 7, 11])
    head.store_contribution(rows, event_numbers, np.array([0.5, 9.0, 1.5, 9.0, -2.0]))
    results = head.added(np.array([0, 1, 2]), np.array([[0, 0], [4, 11], [7, 7]]))
    assert results.tolist() == [[0, 0], [1.5, -2], [0, 0]]


def test_tells_what_normals_would_score_now():
    """A new head gives the kept normals, in their order, their old score and about what it will add to new ones."""
    head, scaler = parts()
    rng = np.random.default_rng(1)
    readings = np.concatenate([draw(rng, 400), draw(rng, 60, shift=2)])[None]
    scores, wrong = rng.normal(size=(1, 460)), np.arange(460)[None] >= 400
    renewed = head.learn(np.array([0]), readings, scores, ~wrong, wrong, scaler)
    added = renewed[0] - scores[0, :400]
    fresh = head.trust[0] * odds(head, scaler, draw(rng, 4000))
    assert added.min() >= head.trust[0] * LEAST - 1e-6
    assert np.quantile(added, (0.5, 0.9)) == pytest.approx(np.quantile(fresh, (0.5, 0.9)), abs=0.35)
    none = np.zeros_like(wrong)
    assert head.learn(np.array([0]), readings, scores, none, none, scaler) == {}


def test_what_the_score_knows_is_not_added_again():
    """Anomalies that the score itself separated from normals get less from the head than those that it did not."""
    rng = np.random.default_rng(2)
    readings = np.concatenate([draw(rng, 400), draw(rng, 60, shift=2)])[None]
    wrong, results = np.arange(460)[None] >= 400, []
    for score in (-4.0, 0.0, 4.0):
        head, scaler = parts()
        head.learn(np.array([0]), readings, score * wrong, ~wrong, wrong, scaler)
        results.append(np.median(odds(head, scaler, draw(rng, 400, shift=2))))
    assert results == sorted(results, reverse=True)
    assert results[0] - results[2] > 1
