"""The stacked autoencoder: what it computes, and that neighbours change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stream_ad.detector.model.model_stack import SLOPE
from stream_ad.detector.model.numba_autoencoder import CompiledAutoencoder
from stream_ad.detector.model.torch_autoencoder import Autoencoder
from stream_ad.detector.row_store import derived_size


class Compiled:
    """The compiled stack, taking and returning tensors as the other one does; events and state stay arrays."""

    def __init__(self, width: int, *, device: str, rate: float) -> None:
        self.own = CompiledAutoencoder(width, rate=rate)

    def __getattr__(self, name: str):
        attribute = getattr(self.own, name)
        if name in {"reconstruct_events", "state", "load", "append"}:
            return attribute
        return (
            (lambda *results: in_tensors(attribute(*map(in_arrays, results))))
            if callable(attribute)
            else in_tensors(attribute)
        )


def in_tensors(given):
    if isinstance(given, tuple):
        return tuple(map(in_tensors, given))
    return torch.from_numpy(given) if isinstance(given, np.ndarray) else given


def in_arrays(given):
    if isinstance(given, tuple):
        return tuple(map(in_arrays, given))
    return np.ascontiguousarray(given.numpy()) if isinstance(given, torch.Tensor) else given


KINDS = [Autoencoder, Compiled]


def stack(models: int, width: int = 24, kind: type[Autoencoder] = Autoencoder) -> Autoencoder:
    out = kind(width, device="cpu", rate=3e-3)
    out.append(np.arange(1, models + 1, dtype=np.uint64))
    return out


def module(own: Autoencoder, model: int) -> torch.nn.Sequential:
    """The same network as a plain torch module."""
    parts: list[torch.nn.Module] = []
    for number, layer in enumerate(own.layers):
        linear = torch.nn.Linear(layer.inputs, layer.outputs)
        weight, bias = layer.of(own.flat[model : model + 1])
        with torch.no_grad():
            linear.weight.copy_(weight[0].T)
            linear.bias.copy_(bias[0, 0])
        parts += [linear, torch.nn.Sigmoid() if number == 3 else torch.nn.LeakyReLU(SLOPE)]
    return torch.nn.Sequential(*parts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("features", [1, 8, 19, 52])
def test_each_model_reconstructs_what_a_plain_torch_module_does(features, kind):
    """Each model of the stack computes what torch's own layers compute, for batches and for single events."""
    width = derived_size(features)
    own = stack(3, width, kind)
    x = torch.rand(3, 16, width)
    which = np.array([2, 0])
    got = own.reconstruct_grid(which, x[which])
    models = np.array([1, 0, 1, 2, 1])
    events = own.reconstruct_events(models, x[0, :5].numpy())
    for index, model in enumerate(which):
        torch.testing.assert_close(got[index], module(own, model)(x[model]))
    for index, model in enumerate(models):
        torch.testing.assert_close(torch.from_numpy(events[index]), module(own, model)(x[0, index]))


def test_backward_is_autograds():
    """The written-out gradient is the one autograd finds."""
    own = stack(3)
    x, target = torch.rand(3, 8, 24), torch.rand(3, 8, 24)
    flat = own.flat[:3].clone().requires_grad_()
    layers = [layer.of(flat) for layer in own.layers]
    h = x
    for number, (weight, bias) in enumerate(layers):
        h = torch.baddbmm(bias, h, weight)
        h = torch.sigmoid(h) if number == 3 else torch.nn.functional.leaky_relu(h, SLOPE)
    ((h - target) ** 2).sum().backward()
    with torch.no_grad():
        states = own.forward(own.flat[:3], x)
        got = own.backward(own.flat[:3], states, 2 * (states[-1] - target))
    torch.testing.assert_close(got, flat.grad, rtol=1e-4, atol=1e-6)


def test_steps_are_those_of_torchs_adam():
    """Ten steps move a model exactly as torch.optim.Adam does, to rounding."""
    own = stack(1)
    torch.manual_seed(0)
    gradients = torch.randn(10, 1, own.parameters)
    parameter = torch.nn.Parameter(own.flat[:1].clone())
    adam = torch.optim.Adam([parameter], lr=3e-3)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        adam.step()
        own.step(np.array([0]), gradient)
    torch.testing.assert_close(own.flat[:1], parameter.detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("features", [1, 8, 19])
@pytest.mark.parametrize("which", [[0, 1, 2], [2, 0]])
def test_the_compiled_stack_learns_what_torchs_operations_learn(features, which):
    """Thirty steps on the plain loss take all models or some of them to the same weights, to rounding."""
    width, chosen = derived_size(features), np.array(which)
    torch.manual_seed(features)
    x, weight, mask = torch.rand(30, len(which), 32, width), torch.rand(30, len(which), 32), torch.rand(width).round()
    inputs = mask.expand(len(which), 32, width).contiguous()
    trained = []
    for kind in KINDS:
        own = stack(3, width, kind)
        for step in range(0, 30, 2):
            loss, _ = own.train_step(chosen, x[step], weight[step], inputs)
            own.apply_gradient(chosen, x[step + 1], (own.reconstruct_grid(chosen, x[step + 1]) - 0.5) / width)
        trained.append((own, loss))
    (torchs, torchs_loss), (compiled, compiled_loss) = trained
    assert torchs.steps.tolist() == compiled.steps.tolist()
    torch.testing.assert_close(compiled_loss, torchs_loss, rtol=1e-4, atol=1e-6)
    for name in ("flat", "first", "second"):
        torch.testing.assert_close(getattr(compiled, name), getattr(torchs, name), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_two_steps_at_once_are_one_after_the_other(kind):
    """To the last bit, and their results are those of the first of two calls."""
    torch.manual_seed(0)
    which, width = np.array([2, 0]), derived_size(8)
    x, weight, inputs = torch.rand(2, 2, 32, width), torch.rand(2, 2, 32), torch.rand(2, 2, 32, width)
    at_once, in_turn = stack(3, width, kind), stack(3, width, kind)
    results = at_once.plain_steps(which, *zip(x, weight, inputs, strict=True))
    expected = [part.clone() for part in in_turn.train_step(which, x[0], weight[0], inputs[0])]
    in_turn.train_step(which, x[1], weight[1], inputs[1])
    for first, other in zip(results, expected, strict=True):
        assert torch.equal(first, other)
    for name in ("flat", "first", "second", "steps"):
        assert torch.equal(getattr(at_once, name), getattr(in_turn, name))


def test_a_model_that_does_not_step_rests():
    """A step of some models leaves weights, moments and step counts of the others untouched."""
    own = stack(4)
    before = {name: array.copy() for name, array in own.state("").items()}
    own.step(np.array([1, 3]), torch.ones(2, own.parameters))
    after = own.state("")
    for name, array in before.items():
        assert np.array_equal(array[[0, 2]], after[name][[0, 2]]), name
        assert not np.array_equal(array[[1, 3]], after[name][[1, 3]]), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("features", [1, 2, 3, 5, 8, 13, 19, 52])
def test_a_row_does_not_depend_on_its_neighbours(features, kind):
    """Bit for bit, an event is reconstructed alike alone and among any others of its model and of others."""
    width = derived_size(features)
    own = stack(7, width, kind)
    random = np.random.default_rng(features)
    x = random.random((300, width), np.float32)
    models = random.integers(0, 7, 300)
    whole = own.reconstruct_events(models, x)
    for chosen in (
        np.arange(1),
        np.arange(9),
        np.arange(33),
        random.permutation(300)[:64],
        np.flatnonzero(models == 3),
    ):
        chosen.sort()
        assert np.array_equal(own.reconstruct_events(models[chosen], x[chosen]), whole[chosen])


@pytest.mark.parametrize("features", [1, 3, 8, 19])
def test_a_step_does_not_depend_on_its_neighbours(features):
    """Bit for bit, a model learns the same alone and beside 39 others."""
    width = derived_size(features)
    x = torch.rand(40, 32, width)
    weight, inputs = torch.rand(40, 32), torch.rand(40, 32, width)

    def learn(which: np.ndarray) -> torch.Tensor:
        own = stack(40, width, Compiled)
        for _ in range(3):
            own.train_step(which, x[which], weight[which], inputs[which])
            own.apply_gradient(which, x[which], inputs[which] - 0.5)
        return own.flat

    together = learn(np.arange(40))
    for which in (np.array([5]), np.array([0, 5, 39]), np.arange(7)):
        assert torch.equal(learn(which)[which], together[which])


def test_initial_weights_follow_from_the_key_alone():
    """A sensor's first weights are the same whatever was added before it; two sensors differ."""
    first, other = stack(3), Autoencoder(24, device="cpu", rate=3e-3)
    other.append(np.array([3], np.uint64))
    assert torch.equal(first.flat[2], other.flat[0])
    assert not torch.equal(first.flat[0], first.flat[1])


def test_a_wider_model_goes_on_where_the_narrow_one_stood():
    """Transplanted among more features, a model reconstructs its own as before, whatever the new ones read."""
    narrow, wide = stack(1, derived_size(2)), stack(1, derived_size(3))
    wide.transplant(narrow, 0, features=2, positions=np.array([0, 2]), among=3)
    x, y = torch.full((1, 8, 8), 0.5), torch.rand(1, 8, 16)
    own = torch.rand(8, 3, 2)  # row, kind of input, feature
    x[0, :, :6] = own.reshape(8, 6)
    for kind in range(3):
        y[0, :, [3 * kind, 3 * kind + 2]] = own[:, kind]
    x[0, :, 6:] = 0
    before = narrow.forward(narrow.flat, x)[-1][0, :, :6].reshape(8, 3, 2)
    after = wide.forward(wide.flat, y)[-1][0, :, :9].reshape(8, 3, 3)[:, :, [0, 2]]
    # The narrow model also has two inputs of padding; with 0 in them, it gives what the wide model gives.
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)


def test_state_round_trip():
    """Saved and loaded, a stack is the same to the last bit."""
    own = stack(3)
    own.step(np.array([0, 2]), torch.ones(2, own.parameters))
    other = Autoencoder(24, device="cpu", rate=3e-3)
    other.load("m.", own.state("m."))
    for name, array in other.state("").items():
        assert np.array_equal(array, own.state("")[name]), name


def test_a_state_of_another_shape_is_refused():
    """Parameters of a narrower stack raise ValueError and name the array."""
    with pytest.raises(ValueError, match=r"m\.flat: expected float32"):
        stack(1, 24).load("m.", stack(1, 16).state("m."))


def test_moments_that_fade_end_at_nought():
    """Moments without a gradient for thousands of steps leave no denormal numbers, which CPUs are slow to compute."""
    own = stack(1, 24, Compiled)
    x, weight, inputs = torch.rand(1, 32, 24), torch.ones(1, 32), torch.ones(1, 32, 24)
    own.train_step(np.zeros(1, np.int64), x, weight, inputs)
    inputs[:, :, 16:] = 0  # these outputs move nothing any more
    for _ in range(1000):
        own.train_step(np.zeros(1, np.int64), x, weight, inputs)
    for moment in (own.first, own.second):
        sizes = moment.abs()
        assert not ((sizes > 0) & (sizes < torch.finfo(torch.float32).tiny)).any()
    assert (own.first == 0).sum() > own.parameters // 10
