"""The stacked autoencoder: what it computes, and that neighbours change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stream_ad.detector.autoencoder import SLOPE, Autoencoder
from stream_ad.detector.compiled_autoencoder import CompiledAutoencoder
from stream_ad.detector.rows import derived_size

CPU = torch.device("cpu")


KINDS = [Autoencoder, CompiledAutoencoder]


def stack(models: int, width: int = 24, kind: type[Autoencoder] = Autoencoder) -> Autoencoder:
    out = kind(width, device=CPU, rate=3e-3)
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
@pytest.mark.parametrize("features", [1, 8, 19])
def test_forward_is_that_of_a_plain_torch_module(features, kind):
    """Each model of the stack computes what torch's own layers compute."""
    width = derived_size(features)
    own = stack(3, width, kind)
    x = torch.rand(3, 16, width)
    got = own.forward(own.flat[:3], x)[-1]
    for model in range(3):
        torch.testing.assert_close(got[model], module(own, model)(x[model]))


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
    found = []
    for kind in KINDS:
        own = stack(3, width, kind)
        for step in range(30):
            flat = own.models(chosen)
            states = own.forward(flat, x[step])
            slope, loss = own.plain_slope(x[step], states[-1], weight[step], inputs)
            own.descend(chosen, flat, states, slope)
        found.append((own, loss))
    (torchs, torchs_loss), (compiled, compiled_loss) = found
    assert torchs.steps.tolist() == compiled.steps.tolist()
    torch.testing.assert_close(compiled_loss, torchs_loss, rtol=1e-4, atol=1e-6)
    for name in ("flat", "first", "second"):
        torch.testing.assert_close(getattr(compiled, name), getattr(torchs, name), rtol=1e-3, atol=1e-5)


def test_a_model_that_does_not_step_rests():
    """A step of some models leaves weights, moments and step counts of the others untouched."""
    own = stack(4)
    before = {name: array.copy() for name, array in own.state("").items()}
    own.step(np.array([1, 3]), torch.ones(2, own.parameters))
    after = own.state("")
    for name, array in before.items():
        assert np.array_equal(array[[0, 2]], after[name][[0, 2]]), name
        assert not np.array_equal(array[[1, 3]], after[name][[1, 3]]), name


@pytest.mark.parametrize("features", [1, 2, 3, 5, 8, 13, 19, 52])
def test_a_row_does_not_depend_on_its_neighbours(features):
    """Bit for bit, a reconstruction is the same for every number of rows and of models beside it."""
    width = derived_size(features)
    own = stack(40, width, CompiledAutoencoder)
    x = torch.rand(40, 32, width)
    whole = own.forward(own.flat, x.clone())[-1]
    for models in (1, 2, 3, 7, 40):
        for rows in (8, 16, 24, 32, 64):
            part = torch.full((models, rows, width), 0.5)
            shown = min(rows, 32)
            part[:, :shown] = x[:models, :shown]
            got = own.forward(own.models(np.arange(models)), part)[-1]
            assert torch.equal(got[:, :shown], whole[:models, :shown]), (models, rows)


@pytest.mark.parametrize("features", [1, 3, 8, 19])
def test_a_step_does_not_depend_on_its_neighbours(features):
    """Bit for bit, a model learns the same alone and beside 39 others."""
    width = derived_size(features)
    x, target = torch.rand(40, 32, width), torch.rand(40, 32, width)

    def learn(which: np.ndarray) -> torch.Tensor:
        own = stack(40, width, CompiledAutoencoder)
        for _ in range(3):
            flat = own.models(which)
            states = own.forward(flat, x[which])
            own.descend(which, flat, states, states[-1] - target[which])
        return own.flat

    together = learn(np.arange(40))
    for which in (np.array([5]), np.array([0, 5, 39]), np.arange(7)):
        assert torch.equal(learn(which)[which], together[which])


def test_initial_weights_follow_from_the_key_alone():
    """A sensor's first weights are the same whatever was added before it; two sensors differ."""
    one, other = stack(3), Autoencoder(24, device=CPU, rate=3e-3)
    other.append(np.array([3], np.uint64))
    assert torch.equal(one.flat[2], other.flat[0])
    assert not torch.equal(one.flat[0], one.flat[1])


def test_a_wider_model_goes_on_where_the_narrow_one_stood():
    """Embedded among more features, a model rebuilds its own features as before, whatever the new ones read."""
    narrow, wide = stack(1, derived_size(2)), stack(1, derived_size(3))
    wide.embed(narrow, 0, features=2, positions=np.array([0, 2]), among=3)
    x, y = torch.full((1, 8, 8), 0.5), torch.rand(1, 8, 16)
    own = torch.rand(8, 3, 2)  # row, kind of input, feature
    x[0, :, :6] = own.reshape(8, 6)
    for kind in range(3):
        y[0, :, [3 * kind, 3 * kind + 2]] = own[:, kind]
    x[0, :, 6:] = 0
    before = narrow.forward(narrow.flat, x)[-1][0, :, :6].reshape(8, 3, 2)
    after = wide.forward(wide.flat, y)[-1][0, :, :9].reshape(8, 3, 3)[:, :, [0, 2]]
    # The narrow one also saw two inputs of filling; shown 0 there, it says what the wide one says.
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)


def test_state_round_trip():
    """Saved and loaded, a stack is the same to the last bit."""
    own = stack(3)
    own.step(np.array([0, 2]), torch.ones(2, own.parameters))
    other = Autoencoder(24, device=CPU, rate=3e-3)
    other.load("m.", own.state("m."))
    for name, array in other.state("").items():
        assert np.array_equal(array, own.state("")[name]), name


def test_a_state_of_another_shape_is_refused():
    """Parameters of a narrower stack raise ValueError and name the array."""
    with pytest.raises(ValueError, match=r"m\.flat: expected float32"):
        stack(1, 24).load("m.", stack(1, 16).state("m."))
