"""The losses against float64 NumPy references written from their formulas, and their gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stream_ad.detector.model import losses

FORMS = ("f0", "f1", "f2")
unit = st.floats(0, 1, width=64)


def cube(last: int = 3):
    """(2, 4, last) values in [0, 1]."""
    return arrays(np.float64, (2, 4, last), elements=unit)


def reference_guide(x, form):
    return {"f0": 1 - x, "f1": np.where(x <= 0.5, 1.0, 0.0), "f2": np.where(x <= 0.5, x + 0.5, x - 0.5)}[form]


def reference_loss(x, reconstructed, y, w, alpha, form):
    """Sum of w [(1 - y) |x - x̂|² + y lambda |F(x) - x̂|²] / sum of w, lambda = alpha / odds, event by event."""
    total = weights = 0.0
    odds = y.sum() / (len(y) - y.sum())
    for i in range(len(y)):
        normal = np.mean((x[i] - reconstructed[i]) ** 2)
        guided = np.mean((reference_guide(x[i], form) - reconstructed[i]) ** 2)
        total += w[i] * ((1 - y[i]) * normal + y[i] * alpha / odds * guided)
        weights += w[i]
    return total / weights


def torch_loss(x, reconstructed, y, w, lam, form):
    ones = torch.ones_like(x)
    normal = losses.per_event((x - reconstructed) ** 2, ones)
    guided = losses.per_event((losses.anomaly_target(x, form) - reconstructed) ** 2, ones)
    return losses.guided_loss(normal, guided, y, w, lam)


@given(
    x=arrays(np.float64, (6, 3), elements=unit), reconstructed=arrays(np.float64, (6, 3), elements=unit), data=st.data()
)
def test_guided_loss_is_the_formula(x, reconstructed, data):
    """For any inputs, weights, alpha and F, the label-guided loss is the published formula to 1e-12."""
    y = np.array([0, 0, 0, 1, 0, 1.0])
    w = np.array(data.draw(st.lists(st.floats(0.1, 10), min_size=6, max_size=6)))
    alpha, form = data.draw(st.floats(0.1, 2)), data.draw(st.sampled_from(FORMS))
    lam = alpha / (2 / 4)
    got = torch_loss(*map(torch.from_numpy, (x, reconstructed, y, w)), lam, form)
    assert got.item() == pytest.approx(reference_loss(x, reconstructed, y, w, alpha, form), rel=1e-12)


@pytest.mark.parametrize(("form", "expected"), [("f0", [0.8, 0.5, 0.1]), ("f1", [1, 1, 0]), ("f2", [0.7, 1.0, 0.4])])
def test_guides_number_by_number(form, expected):
    """F0, F1 and F2 of .2, .5 and .9 are what AE-SAD defines."""
    got = losses.anomaly_target(torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64), form)
    assert got.tolist() == pytest.approx(expected, abs=1e-15)


@given(x=unit, form=st.sampled_from(FORMS))
def test_guides_stay_in_the_unit_interval(x, form):
    """Every F maps [0, 1] into [0, 1], where a sigmoid can reach it."""
    assert 0 <= losses.anomaly_target(torch.tensor(x, dtype=torch.float64), form).item() <= 1


@given(x=unit)
def test_f2_keeps_its_margin(x):
    """F2(x) is exactly one half away from x everywhere, which F0 is not near .5."""
    assert abs(losses.anomaly_target(torch.tensor(x, dtype=torch.float64), "f2").item() - x) == pytest.approx(
        0.5, abs=1e-15
    )


def test_loss_of_one_normal_event_is_its_squared_error():
    """A single normal event costs its mean squared error, whatever its weight."""
    x, reconstructed = torch.tensor([[0.2, 0.6]]), torch.tensor([[0.4, 0.5]])
    got = torch_loss(x, reconstructed, torch.zeros(1), torch.tensor([7.0]), 3.0, "f2")
    assert got.item() == pytest.approx((0.2**2 + 0.1**2) / 2, rel=1e-6)


def test_only_anomalies_leave_only_the_guided_part():
    """A batch of anomalies alone costs lambda times its mean distance from F(x)."""
    x, reconstructed = torch.tensor([[0.2], [0.8]]), torch.tensor([[0.2], [0.8]])
    got = torch_loss(x, reconstructed, torch.ones(2), torch.ones(2), 3.0, "f2")
    assert got.item() == pytest.approx(3 * 0.25, rel=1e-6)


@pytest.mark.parametrize("events", [0, 4])
def test_nothing_to_learn_costs_nothing(events):
    """An empty batch, and one whose events all weigh nothing, cost 0 and have a gradient of 0."""
    x, reconstructed = torch.rand(events, 3), torch.rand(events, 3, requires_grad=True)
    loss = torch_loss(x, reconstructed, torch.zeros(events), torch.zeros(events), 1.0, "f2")
    loss.backward()
    assert loss.item() == 0
    assert reconstructed.grad.abs().sum() == 0


def test_a_missing_input_adds_nothing_and_learns_nothing():
    """Inputs with mask 0 change neither the loss nor any gradient; an event without inputs costs 0."""
    x, reconstructed = torch.rand(2, 3), torch.rand(2, 3, requires_grad=True)
    mask = torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    each = losses.per_event((x - reconstructed) ** 2, mask)
    each.sum().backward()
    square = ((x - reconstructed) ** 2)[0].detach()
    assert each.tolist() == pytest.approx([((square[0] + square[2]) / 2).item(), 0.0])
    assert reconstructed.grad[0, 1] == 0
    assert (reconstructed.grad[1] == 0).all()


@given(loss=st.floats(0, 50))
def test_amplification_is_the_formula_and_its_tangent(loss):
    """Below .99 the amplified loss is -log(1 - loss), above it 4.605… + 100 (loss - .99)."""
    got = losses.amplify(torch.tensor(loss, dtype=torch.float64)).item()
    expected = -math.log1p(-loss) if loss < 0.99 else -math.log(0.01) + 100 * (loss - 0.99)
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(loss=st.floats(0, 1e6))
def test_amplification_has_a_finite_gradient_that_never_vanishes(loss):
    """The gradient lies between 1 and 100 everywhere: finite at 1 and above, and never 0 for the worst elements."""
    value = torch.tensor(loss, dtype=torch.float64, requires_grad=True)
    losses.amplify(value).backward()
    assert 1 <= value.grad.item() <= 100 + 1e-9


def test_amplification_works_by_element():
    """Amplifying before averaging differs from amplifying the average, which at .01 does nothing."""
    squares = torch.tensor([[0.0, 0.0, 0.9]], dtype=torch.float64)
    by_element = losses.per_event(losses.amplify(squares), torch.ones_like(squares)).item()
    assert by_element == pytest.approx(-math.log(0.1) / 3)
    assert by_element > losses.amplify(squares.mean()).item()


def test_score_penalty_number_by_number():
    """Scores .1, .5 and 2 with weight .5 give .71."""
    scores = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    assert 0.5 * losses.score_penalty(scores, torch.ones(3)).item() == pytest.approx(0.71, abs=1e-12)


def test_score_penalty_counts_events_taken_as_normal_only():
    """Anomalies add nothing to the penalty, and no event at all gives 0."""
    scores = torch.tensor([0.1, 0.5, 2.0])
    assert losses.score_penalty(scores, torch.tensor([1.0, 1, 0])).item() == pytest.approx((0.01 + 0.25) / 2)
    assert losses.score_penalty(scores, torch.zeros(3)).item() == 0


@given(x=cube(), reconstructed=cube())
def test_away_leads_away_from_the_reconstruction(x, reconstructed):
    """The guide never lies on the side of x where the reconstruction stands farther off than before, and
    moves each input by its error or 5 standard deviations, whichever is more, within [0, 1].
    """
    variance = np.full((2, 1, 3), 0.01)
    target, weight = losses.away_target(*map(torch.from_numpy, (x, reconstructed, variance)))
    error = x - reconstructed
    expected = np.clip(x - np.sign(error) * np.maximum(np.abs(error), 5 * 0.1), 0, 1)
    q = error**2 / 0.01
    assert target.numpy() == pytest.approx(expected, abs=1e-12)
    assert weight.numpy() == pytest.approx(q / (q + 4), abs=1e-12)


def test_away_saturates():
    """An input that is off by 5 standard deviations already has no loss left: its target is its reconstruction."""
    x, reconstructed = torch.tensor([[[0.9]]]), torch.tensor([[[0.3]]])
    target, _ = losses.away_target(x, reconstructed, torch.full((1, 1, 1), 0.01))
    assert target.item() == pytest.approx(0.3)


def test_scale_bounds_the_step_of_a_rare_class():
    """Scaled, the loss is a weighted mean of normal and guided parts: lambda 100 cannot lengthen it."""
    normal, guided = torch.full((4,), 0.2), torch.full((4,), 0.3)
    y, w = torch.tensor([0.0, 0, 0, 1]), torch.ones(4)
    loss = losses.guided_loss(normal, guided, y, w, 100.0) * losses.guided_scale(y, w, 100.0)
    assert loss.item() == pytest.approx((3 * 0.2 + 100 * 0.3) / 103)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("amplified", [False, True])
def test_gradients(form, amplified):
    """The whole loss with amplification and penalty has the gradient that finite differences give."""
    torch.manual_seed(0)
    x = torch.rand(5, 3, dtype=torch.float64)
    reconstructed = (x + 0.2 * torch.randn_like(x)).clamp(0.01, 0.99).requires_grad_()
    y, w = torch.tensor([0.0, 1, 0, 0, 1]).double(), torch.tensor([1.0, 2, 0.5, 1, 3]).double()

    def loss(reconstructed):
        ones, squares = torch.ones_like(x), (x - reconstructed) ** 2
        normal = losses.per_event(losses.amplify(squares) if amplified else squares, ones)
        guided = losses.per_event((losses.anomaly_target(x, form) - reconstructed) ** 2, ones)
        penalty = losses.score_penalty(losses.per_event(squares / 0.01, ones), 1 - y)
        return losses.guided_loss(normal, guided, y, w, 1.5) + 0.1 * penalty

    assert torch.autograd.gradcheck(loss, (reconstructed,))


@settings(deadline=None)
@given(
    x=cube(),
    reconstructed=cube(),
    weight=arrays(np.float64, (2, 4), elements=st.floats(0, 3)),
    mask=arrays(np.float64, (2, 4, 3), elements=st.sampled_from([0.0, 0.5, 1.0])),
)
def test_the_plain_slope_is_autograds(x, reconstructed, weight, mask):
    """Loss and slope of a batch without anomalies are those of the guided loss under autograd."""
    x, reconstructed, weight, mask = (torch.from_numpy(array) for array in (x, reconstructed, weight, mask))
    slope, loss = losses.plain_slope(x, reconstructed, weight, mask)
    reconstructed.requires_grad_()
    normal = losses.per_event((x - reconstructed) ** 2, mask)
    expected = losses.guided_loss(normal, normal, torch.zeros_like(weight), weight, 1.0)
    (gradient,) = torch.autograd.grad(expected.sum(), reconstructed)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(slope, gradient)
