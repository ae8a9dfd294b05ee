"""The threshold: the rates of its levels are those that are measured."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stream_ad.detector.scoring.tail_quantile import TAIL_SHARES, tail_quantile
from stream_ad.detector.scoring.threshold import (
    FIRST_EVENTS,
    LABELLED_ENOUGH,
    MIDDLE,
    RECENT,
    ROW_RATE,
    STATIC_PEAKS,
    Threshold,
    published,
    static_level,
)

RATES = np.array([1e-2])
SCORES = {
    "log chi-square, 8 features": lambda rng, size: np.log(rng.chisquare(8, size) / 8 + 0.01),
    "log chi-square, 2 features": lambda rng, size: np.log(rng.chisquare(2, size) / 2 + 0.01),
    "normal": lambda rng, size: rng.normal(size=size),
    "exponential": lambda rng, size: rng.exponential(size=size),
    "log of squared Student": lambda rng, size: np.log(rng.standard_t(3, size) ** 2 + 0.01),
}


def threshold(sensors=1, *, window=8192, budgets=1):
    calibrated = Threshold(3, window=window, budgets=budgets)
    calibrated.append(sensors)
    return calibrated


def feed(calibrated, scores, *, labelled=True, row=0, gate=0.0, rates=(1e-2,)):
    """Batches of 32 scores of a table, or of a stream with memory (gate 1), all labelled normal or none."""
    for start in range(0, len(scores), 32):
        batch = scores[None, start : start + 32]
        yes, no = np.ones(batch.shape, np.bool_), np.zeros(batch.shape, np.bool_)
        which = (yes, no) if labelled else (no, yes)
        calibrated.update(np.array([row]), batch, *which, np.array([gate]), np.array([rates]))


@pytest.mark.parametrize("shape", SCORES)
@pytest.mark.parametrize(("number", "rate"), [(400, 1e-2), (1024, 1e-3), (8192, 1e-3)])
def test_level_keeps_the_rate_within_a_factor_of_two(shape, number, rate):
    """Whatever the scores look like, the mean share of new normal scores above the level is the one asked for."""
    rng = np.random.default_rng(1)
    sets = np.sort(SCORES[shape](rng, (100, number)), axis=1)
    levels = tail_quantile(sets, np.full(100, number), rate)
    fresh = np.sort(SCORES[shape](rng, 1_000_000))
    measured = np.mean(1 - np.searchsorted(fresh, levels) / len(fresh))
    assert rate / 2 <= measured <= rate * 2


@pytest.mark.parametrize("shape", SCORES)
def test_level_agrees_with_maximum_likelihood_on_many_scores(shape):
    """With many excesses the level is that of scipy's generalised Pareto fit, to a fifth of the tail's scale."""
    scores = np.sort(SCORES[shape](np.random.default_rng(2), 20_000))
    quantile = tail_quantile(scores[None], np.array([len(scores)]), 1e-3)[0]
    base = scores[int(np.ceil(0.98 * len(scores))) - 1]
    excess = scores[scores > base] - base
    fitted = stats.genpareto(*stats.genpareto.fit(excess, floc=0))
    assert quantile == pytest.approx(base + fitted.ppf(1 - 1e-3 * len(scores) / len(excess)), abs=0.2 * excess.mean())


def test_level_of_a_row_is_its_own():
    """How far other rows are filled does not move a row's level by a single bit."""
    rng = np.random.default_rng(3)
    short = np.sort(rng.normal(size=300))
    alone = tail_quantile(short[None], np.array([300]), 1e-3)
    beside = np.full((2, 5000), np.inf)
    beside[0, :300], beside[1] = short, np.sort(rng.normal(size=5000))
    assert tail_quantile(beside, np.array([300, 5000]), 1e-3)[0] == alone[0]


def test_level_rises_as_the_rate_falls():
    """Fewer tolerated false alarms never lower the level."""
    scores = np.sort(np.random.default_rng(4).normal(size=(1, 2000)), axis=1)
    levels = [tail_quantile(scores, np.array([2000]), rate)[0] for rate in (0.3, 0.1, 0.05, 1e-2, 1e-3, 1e-4)]
    assert levels == sorted(levels)


@pytest.mark.parametrize("rate", [0.2, 1e-2])
def test_nothing_known_is_no_alarm(rate):
    """Without scores the level is infinite, and constant scores give a finite one just above them."""
    assert tail_quantile(np.full((1, 4), np.inf), np.array([0]), rate)[0] == np.inf
    constant = tail_quantile(np.full((1, 64), 2.0), np.array([64]), rate)[0]
    assert 2.0 <= constant < 2.1


def test_static_level_stands_in_until_there_are_scores_and_fades_with_them():
    """First the static level alone; then a lower one is believed the more the more independent peaks it rests on."""
    rng, calibrated = np.random.default_rng(5), threshold()
    scores = rng.normal(-4, 0.3, 3072)
    static = static_level(np.zeros(1), ROW_RATE)[0]
    feed(calibrated, scores[: FIRST_EVENTS - 8])
    assert calibrated.log_level[0] == static
    levels = []
    for start in range(0, len(scores), 128):
        feed(calibrated, scores[start : start + 128])
        levels.append(float(calibrated.log_level[0]))
    assert (np.diff(levels[:4]) < 0).all()
    half = int(STATIC_PEAKS / TAIL_SHARES[1] / 2)
    even = threshold()
    feed(even, scores[:half])
    assert even.log_level[0] == pytest.approx((static - 3) / 2, abs=1)  # half way, at so many peaks
    assert levels[-1] < static - 0.8 * (static + 3)


def test_a_run_of_high_scores_is_one_peak():
    """Scores that come in runs leave more of the static level in force than as many that come one by one."""
    rng = np.random.default_rng(11)
    scores = rng.normal(-4, 0.3, 640)
    mixed, runs = threshold(), threshold()
    feed(mixed, scores)
    feed(runs, np.concatenate([np.sort(part) for part in np.split(scores, 2)]))
    assert runs.log_level[0] > mixed.log_level[0] + 1


def test_level_does_not_run_away_from_what_was_seen():
    """A burst of high scores raises the level to what it reached, where that alone keeps the rate, and no farther."""
    scores = np.random.default_rng(12).normal(size=2500)
    scores[1000:1060] = np.linspace(7, 7.5, 60)
    quantile = tail_quantile(np.sort(scores)[None], np.array([2500]), 1e-3)[0]
    assert 7 < quantile <= 7.5


def test_a_label_that_an_alarm_was_none_counts_at_once():
    """One batch of alarms labelled normal raises the level, long before an eighth of what is kept is new."""
    rng, calibrated = np.random.default_rng(13), threshold()
    feed(calibrated, rng.normal(size=8192))
    before = calibrated.log_level[0]
    feed(calibrated, before + 1 + rng.random(32))
    assert calibrated.log_level[0] > before + 1


def test_static_level_is_higher_where_less_is_tolerated_and_where_time_counts():
    """20 times the usual error at one in a thousand; twice that on the log scale with memory."""
    np.testing.assert_allclose(static_level(np.array([0.0, 1.0]), 1e-3), np.log(20) * np.array([1, 2]))
    assert static_level(np.zeros(1), 1e-2) < static_level(np.zeros(1), 1e-3)


def test_level_rises_at_once_when_recent_normals_score_higher():
    """After a change the last normals decide, long before they are many among all that are kept."""
    rng, calibrated = np.random.default_rng(10), threshold()
    feed(calibrated, rng.normal(size=7168))
    feed(calibrated, 3 + rng.normal(size=RECENT))
    assert np.mean(3 + rng.normal(size=100_000) >= calibrated.alarm_level[0, 0]) == pytest.approx(0.01, abs=0.01)


def test_level_is_no_lower_than_what_is_expected_of_normals():
    """What normals would score with a new head raises the level at once, until newer ones say less; few do not."""
    rng = np.random.default_rng(1)
    calibrated = threshold(2)
    for row in (0, 1):
        feed(calibrated, rng.normal(size=2000), row=row)
    before = calibrated.log_level.copy()
    calibrated.expect(0, rng.normal(size=LABELLED_ENOUGH - 1) + 9, RATES)
    assert calibrated.log_level[0] == before[0]
    alarm_before = calibrated.alarm_level[0, 0]
    calibrated.expect(0, rng.normal(size=512) + 2, RATES)
    assert calibrated.log_level[0] == pytest.approx(before[0] + 2, abs=0.6)
    assert calibrated.alarm_level[0, 0] == pytest.approx(alarm_before + 2, abs=0.6)
    feed(calibrated, rng.normal(size=1000))
    assert calibrated.log_level[0] == calibrated.expected[0]
    assert calibrated.alarm_level[0, 0] == calibrated.alarm_expected[0, 0]
    calibrated.expect(0, rng.normal(size=512) - 2, RATES)
    assert calibrated.log_level[0] == pytest.approx(before[0], abs=0.3)
    assert calibrated.log_level[1] == before[1]
    calibrated.expect(0, rng.normal(size=512) + 2, RATES)
    calibrated.reset_after_outage(np.array([0]), np.zeros(1))
    assert calibrated.expected[0] == -np.inf


def test_labelled_normals_alone_calibrate_once_there_are_enough():
    """Unlabelled events stop counting when there are enough labels, so that hidden anomalies cannot raise it."""
    rng = np.random.default_rng(6)
    clean, mixed = threshold(), threshold()
    normal = rng.normal(size=LABELLED_ENOUGH + 60)
    feed(mixed, rng.normal(3, 1, 640), labelled=False)
    feed(mixed, normal)
    feed(clean, normal)
    feed(mixed, normal[:32])
    feed(clean, normal[:32])
    assert mixed.log_level[0] == clean.log_level[0]


def test_the_threshold_follows_a_change_of_the_scores():
    """After as many scores as the window holds, only the new ones count."""
    rng = np.random.default_rng(7)
    calibrated = threshold(window=256)
    feed(calibrated, rng.normal(size=512))
    before = calibrated.log_level[0]
    feed(calibrated, 5 + rng.normal(size=512))
    assert calibrated.log_level[0] == pytest.approx(before + 5, abs=1)


def test_gate_is_the_ninetieth_percentile_of_the_last_labelled_normals():
    """Unlabelled events are learned only if they look like nine in ten of the normals."""
    calibrated, scores = threshold(), np.random.default_rng(8).normal(size=2048)
    feed(calibrated, scores)
    assert np.mean(scores[-300:] <= calibrated.gate_level[0]) == pytest.approx(0.9, abs=0.05)


def test_published_scores_keep_their_order_below_one():
    """From the lowest log score to the highest, the published score rises strictly, above 0 and below 1."""
    out = published(np.linspace(-10, 18, 500))
    assert (np.diff(out) > 0).all()
    assert 0 < out[0] < out[-1] < 1
    assert published(np.array([MIDDLE]))[0] == 0.5


def test_levels_of_alarms_are_those_of_tables_alone():
    """Rows of a table have a level for each budget, higher for a smaller one; a stream with memory has none here."""
    rng = np.random.default_rng(16)
    for gate in (0.0, 1.0):
        calibrated = threshold(budgets=3)
        feed(calibrated, rng.normal(size=2048), gate=gate, rates=(1e-2, 1e-3, 1e-4))
        if gate:
            assert np.isinf(calibrated.alarm_level[0]).all()
        else:
            assert (np.diff(calibrated.alarm_level[0]) > 0).all()
            assert np.isfinite(calibrated.alarm_level[0]).all()


def alarms(scores, *, delay, rate):
    """Share of a stream's events at or above the level, every one labelled normal so many events later."""
    calibrated, count, seen = threshold(), 0, 0
    for start in range(0, len(scores), 32):
        if start >= FIRST_EVENTS + delay:
            count += int((scores[start : start + 32] >= calibrated.alarm_level[0, 0]).sum())
            seen += len(scores[start : start + 32])
        if start >= delay:
            feed(calibrated, scores[start - delay : start - delay + 32], rates=(rate,))
    return count / seen


def with_memory(rng, size):
    """Log scores of errors that are smoothed as those of the detector are."""
    noise, state, out = rng.normal(size=(size, 8)), np.zeros(8), np.empty(size)
    for row in range(size):
        state += 0.15 * (noise[row] - state)
        out[row] = np.log(np.mean(noise[row] ** 2) + 0.01) + np.log(np.mean(state**2) * 12.3 + 0.01)
    return out


STREAMS = {
    **SCORES,
    "with memory": with_memory,
    "with bursts": lambda rng, size: rng.normal(size=size) + 4 * (np.arange(size) % 2000 < 12),
}


@pytest.mark.parametrize("shape", STREAMS)
@pytest.mark.parametrize("rate", [1e-2, 1e-3])
def test_the_measured_rate_is_the_one_asked_for_within_a_factor_of_two(shape, rate):
    """On streams without drift, with labels that come 512 events late, over ten streams of 12,000 events each."""
    measured = np.mean(
        [alarms(STREAMS[shape](np.random.default_rng([14, seed]), 12_000), delay=512, rate=rate) for seed in range(10)]
    )
    assert rate / 2 <= measured <= rate * 2


@pytest.mark.parametrize("rate", [1e-2, 1e-3])
def test_the_measured_rate_is_within_a_factor_of_four_on_a_drift(rate):
    """Scores that rise by three standard deviations over 12,000 events, with labels 512 events late."""
    measured = np.mean(
        [
            alarms(
                np.random.default_rng([15, seed]).normal(size=12_000) + np.linspace(0, 3, 12_000), delay=512, rate=rate
            )
            for seed in range(10)
        ]
    )
    assert rate / 4 <= measured <= rate * 4
