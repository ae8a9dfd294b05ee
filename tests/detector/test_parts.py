"""The parts before and behind the autoencoder, each by itself: derived inputs and gate, scaler, score."""

from __future__ import annotations

import numpy as np
import pytest

from stream_ad.detector.features.linear_residuals import LinearResiduals
from stream_ad.detector.features.scaler import CLIP_AFTER, REACH, SCALE_SD, Scaler
from stream_ad.detector.features.temporal import JUMP_RATE, LEVEL_RATE, TemporalFeatures
from stream_ad.detector.feedback.event_buffer import SCORE_STEPS, EventBuffer, pack_score, unpack_scores
from stream_ad.detector.model.replay_buffer import STEPS, ReplayBuffer
from stream_ad.detector.model.training_batch import SensorStatistics
from stream_ad.detector.row_store import derived_size
from stream_ad.detector.scoring.anomaly_score import FLOOR, SMOOTH_RATE, SMOOTH_SCALE, Scoring, shares

F, WIDTH = 2, derived_size(2)
ROW = np.zeros(1, np.int64)


def table_of(kind):
    part = kind(F)
    part.append(1)
    return part


def rows(number):
    return np.zeros(number, np.int64)


# ---------------------------------------------------------------- temporal features


def test_derived_inputs_are_those_of_their_formulas():
    """Distance from the average of the readings so far, this one included, and the average jump."""
    values = np.random.default_rng(0).normal(5, 2, (40, F))
    derived = table_of(TemporalFeatures).derive(rows(40), values)
    level, jump = values[0].copy(), np.abs(values[1] - values[0])
    for step in range(1, 40):
        level += LEVEL_RATE * (values[step] - level)
        if step > 1:
            jump += JUMP_RATE * (np.abs(values[step] - values[step - 1]) - jump)
        np.testing.assert_allclose(derived[step, F : 2 * F], values[step] - level, atol=1e-5)
        np.testing.assert_allclose(derived[step, 2 * F : 3 * F], jump, atol=1e-5)


def test_missing_reading_has_no_inputs_and_leaves_the_averages_alone():
    """What comes after a gap is what would have come without it."""
    values = np.random.default_rng(1).normal(size=(30, F))
    gappy = np.insert(values, [10, 10, 20], np.nan, axis=0)
    whole, with_gaps = (
        table_of(TemporalFeatures).derive(rows(30), values),
        table_of(TemporalFeatures).derive(rows(33), gappy),
    )
    gaps = np.isnan(gappy[:, 0])
    assert np.isnan(with_gaps[gaps]).all()
    np.testing.assert_array_equal(with_gaps[~gaps], whole)


def test_derived_inputs_are_recomputed_from_what_is_kept():
    """For every kept event, in any order, the recomputed inputs are those that it was scored with."""
    block, reach, number = 8, 16, 131
    rng = np.random.default_rng(2)
    values = np.cumsum(rng.normal(size=(number, F)), axis=0)
    values[rng.random(values.shape) < 0.2] = np.nan
    values[100, 0] = 1e9  # a glitch: it must not stay in the averages
    temporal, store = table_of(TemporalFeatures), EventBuffer(F, reach=reach, horizon_events=8, block=block)
    store.append(1)
    temporal.gate_count[:], temporal.gate_var[:] = 1000, 4.0
    scored, at = np.empty((number, WIDTH), np.float32), 0
    for cut in (1, 2, 5, 64, 59):
        event_numbers = np.arange(at, at + cut)
        scored[event_numbers] = derived = temporal.derive(
            rows(cut), values[event_numbers], (event_numbers, store.ewma_checkpoints, block)
        )
        nothing = np.zeros(cut)
        store.push(
            rows(cut),
            event_numbers,
            ids=nothing.astype(np.uint64),
            times=event_numbers,
            order=event_numbers,
            log_score=nothing,
            marks=(nothing > 0, np.zeros(cut, np.int8)),
            derived=derived,
        )
        at += cut
    kept = np.arange(number - reach - block, number)
    for event_numbers in (kept, rng.permutation(kept), np.repeat(kept[:3], 2)):
        again = temporal.recompute(ROW, event_numbers[None], store.readings, store.ewma_checkpoints)[0]
        np.testing.assert_allclose(again, scored[event_numbers], rtol=1e-6, atol=1e-5)  # of readings up to some tens


@pytest.mark.parametrize(("memory", "gate"), [(0.0, 0.0), (0.95, 1.0)])
def test_gate_opens_where_each_reading_resembles_the_one_before(memory, gate):
    """Closed for rows of a table, open for a process with memory."""
    rng, temporal, state = np.random.default_rng(2), table_of(TemporalFeatures), np.zeros(F)
    for _ in range(60):
        values = np.empty((32, F))
        for step in range(32):
            state = memory * state + np.sqrt(1 - memory**2) * rng.normal(size=F)
            values[step] = state
        derived, none = temporal.derive(rows(32), values)[None], np.zeros((1, 32), np.bool_)
        temporal.update_gate(ROW, np.arange(32)[None], derived, none)
    np.testing.assert_allclose(temporal.gate[0], gate, atol=0.1)


# ---------------------------------------------------------------- scaler


def taught(values):
    scaler = table_of(Scaler)
    derived = np.full((1, len(values), WIDTH), np.nan, np.float32)
    derived[0, :, :F] = values
    scaler.update(ROW, derived, np.ones((1, len(values)), np.bool_))
    return scaler


def test_four_standard_deviations_span_the_unit_interval():
    """The mean is .5, ±4 standard deviations are 0 and 1, and what is farther out is kept up to 12."""
    values = np.random.default_rng(3).normal([10, -3], [2, 0.1], (2000, F))
    scaler, mean, sd = taught(values), values.mean(axis=0), values.std(axis=0)
    points = np.array([mean, mean + 4 * sd, mean - 4 * sd, mean + 100 * sd])
    derived = np.full((4, WIDTH), np.nan, np.float32)
    derived[:, :F] = points
    scaled, observed = scaler.transform(rows(4), derived)
    np.testing.assert_allclose(scaled[:, 0], [0.5, 1, 0, 0.5 + REACH], atol=1e-3)
    np.testing.assert_allclose(scaled[:, 1], [0.5, 1, 0, 0.5 + REACH], atol=1e-3)
    assert observed[:, :F].all()
    assert not observed[:, F:].any()
    assert (scaled[:, F:] == 0.5).all()  # missing
    np.testing.assert_allclose(scaler.inverse_transform(rows(3), scaled[:3])[:, :F], points[:3], rtol=1e-4)


def test_an_absurd_reading_moves_the_scale_by_little():
    """Once the scale is known, one reading counts as 30 standard deviations off at most."""
    scaler = taught(np.random.default_rng(4).normal(size=(CLIP_AFTER + 1000, F)))
    before = scaler.deviation(ROW)[0, :F]
    derived = np.full((1, 1, WIDTH), np.nan, np.float32)
    derived[0, 0, :F] = 1e6
    scaler.update(ROW, derived, np.ones((1, 1), np.bool_))
    assert (scaler.deviation(ROW)[0, :F] < 2 * before).all()


# ---------------------------------------------------------------- score


@pytest.mark.parametrize("gate", [0.0, 0.4, 1.0])
def test_score_is_that_of_its_formula(gate):
    """S = log(Q + (1 - g) Z + .01) + g log(M + .01), with what the readings add beside their errors."""
    rng, scoring = np.random.default_rng(5), table_of(Scoring)
    number = 20
    scaled, reconstructed = (rng.uniform(0.2, 0.8, (number, WIDTH)).astype(np.float32) for _ in range(2))
    observed = np.zeros((number, WIDTH), np.bool_)
    observed[:, : 3 * F] = rng.random((number, 3 * F)) < 0.9
    beside = rng.random((2, number, F)).astype(np.float32)
    variance = scoring.variance[0].copy()
    none = np.zeros((0, F), np.bool_)
    log_score, parts, _ = scoring.score(
        rows(number), scaled, observed, reconstructed, np.full((1, F), gate), tuple(beside), none
    )
    weight, smooth = np.repeat([1, gate, gate], F), np.zeros(3 * F)
    for n in range(number):
        present = observed[n, : 3 * F]
        share = weight * present / (weight * present).sum()
        error = (scaled[n] - reconstructed[n])[: 3 * F] / np.sqrt(variance[: 3 * F])
        smooth += present * SMOOTH_RATE * (error - smooth)
        q, m = (share * np.minimum(error**2, 100)).sum(), (share * np.minimum(smooth**2 * SMOOTH_SCALE, 100)).sum()
        z = (share * ((scaled[n, : 3 * F] - 0.5) * SCALE_SD) ** 2).sum()
        instant = q + (1 - gate) * z + beside[0, n].sum()
        smoothed = m + beside[1, n].sum()
        assert log_score[n] == pytest.approx(np.log(instant + FLOOR) + gate * np.log(smoothed + FLOOR), abs=1e-4)
    by_input = shares(parts, np.full(number, gate))
    np.testing.assert_allclose(by_input.sum(axis=1), 1 + gate, rtol=1e-5)


# ---------------------------------------------------------------- what is kept in fewer digits


def test_a_packed_score_is_itself_to_half_a_step():
    """Packing keeps a score to half a step and the order of scores, and packing again changes nothing more."""

    def pack(values):
        return np.array([pack_score(score) for score in values.tolist()])

    scores = np.sort(np.random.default_rng(0).uniform(-11, 19, 1000))
    again = unpack_scores(pack(scores))
    assert np.abs(again - scores).max() <= 0.5 / SCORE_STEPS
    assert (np.diff(again) >= 0).all()
    np.testing.assert_array_equal(unpack_scores(pack(again)), again)


def test_replayed_events_are_those_pushed_wherever_the_stream_goes():
    """To a step of the scale in force, after a level that moved by a thousand deviations; missing stays missing."""
    rng = np.random.default_rng(0)
    scaler, replay = table_of(Scaler), ReplayBuffer(F, capacity=64, shared=False)
    replay.append(1)
    for level in (0.0, 1000.0, 1001.0):
        events = (level + rng.normal(size=(1, 64, WIDTH))).astype(np.float32)
        events[0, ::5, 1] = np.nan
        scaler.count[:] = 0
        scaler.update(ROW, events, np.ones((1, 64), np.bool_))
        replay.push(ROW, events, np.zeros((1, 64), np.int64), np.ones((1, 64), np.bool_), scaler)
    own = SensorStatistics(table_of(TemporalFeatures), scaler, table_of(Scoring), table_of(LinearResiduals))
    drawn, pushed = own.replayed(replay, ROW, 256, "cpu"), own.batch(ROW, events, "cpu")
    assert {0.0, 1.0} == set(drawn.weights[0, :, 1].tolist())
    inputs, weights = (np.asarray(part[0])[:, None] for part in (drawn.inputs, drawn.weights))  # (256, 1, d)
    distance = np.abs(inputs - np.asarray(pushed.inputs[0])) + np.abs(weights - np.asarray(pushed.weights[0]))
    step = (scaler.scale[0] / replay.scale[0]).max() / (SCALE_SD * STEPS)
    assert distance.max(axis=2).min(axis=1).max() <= step / 2 + np.spacing(np.float32(1001)) * scaler.scale[0].max()
    assert step < 2 / (SCALE_SD * STEPS)
