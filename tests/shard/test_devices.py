"""A GPU is believed once it has shown that it computes what the processor does; the GPUs here are stacks that lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stream_ad.detector.model import device_check as agreement
from stream_ad.detector.model import online_autoencoder as network
from stream_ad.detector.model.device_check import MOST, largest_difference
from stream_ad.detector.model.torch_autoencoder import Autoencoder
from stream_ad.errors import DeviceError
from stream_ad.shard import devices
from stream_ad.shard.shard import Shard
from tests.support.streams import options


class Honest(Autoencoder):
    """Torch's operations on the processor: they round as those of a GPU do, otherwise than the compiled loops."""

    made = 0

    def __init__(self, width: int, *, rate: float) -> None:
        super().__init__(width, device="cpu", rate=rate)
        type(self).made += 1
        self.calls = 0


class Shifted(Honest):
    """One weight is off by a thousandth after one step."""

    def train_step(self, which, x, weight, inputs):
        told = super().train_step(which, x, weight, inputs)
        self.calls += 1
        if self.calls == 1:
            self.flat[1, 5] += 1e-3
        return told


class ShiftedLater(Shifted):
    """All is well until operations are recorded and played."""

    def train_step(self, which, x, weight, inputs):
        self.calls += 1
        told = Honest.train_step(self, which, x, weight, inputs)
        if self.calls >= 4:
            self.flat[1, 5] += 1e-3
        return told


class Coarse(Honest):
    """Products in half the digits."""

    def forward(self, flat, x):
        return super().forward(flat.to(torch.bfloat16).float(), x)


class Nothing(Honest):
    """Single events come back as no numbers."""

    def reconstruct_events(self, models, scaled):
        out = super().reconstruct_events(models, scaled)
        out[7, 3] = np.nan
        return out


class Raising(Honest):
    """There is no memory left for a step."""

    def train_step(self, which, x, weight, inputs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore of it")


LIARS = {
    Shifted: "in the weights after step 1",
    ShiftedLater: "in the weights after step 4",
    Coarse: "in the ",
    Nothing: "no numbers in the reconstructions of single events",
    Raising: "raised OutOfMemoryError (CUDA out of memory. Tried to allocate 2.00 GiB.)",
}


@pytest.fixture
def gpu(monkeypatch):
    """Puts a stack of some class in the place of a GPU's."""

    def put(kind: type[Honest]) -> None:
        kind.made = 0
        real = network.stack_on
        monkeypatch.setattr(
            network, "stack_on", lambda device, width, *, rate: kind(width, rate=rate) if device == "cuda"
            else real(device, width, rate=rate)
        )  # fmt: skip
        monkeypatch.setattr(devices, "_torch_finds_one", lambda *, asked: True)

    devices._fault.cache_clear()
    yield put
    devices._fault.cache_clear()


def test_rounding_is_far_below_the_limit():
    """Another order of the same operations differs by a tenth of what is allowed at most."""
    difference = largest_difference(Honest)
    assert not difference.too_large
    assert 0 < difference.share < MOST / 10


def test_a_device_that_agrees_is_used_and_checked_once(gpu):
    """However many shards ask for it, in whatever words."""
    gpu(Honest)
    assert [devices.choose_device(wanted) for wanted in ("auto", "cuda", "auto", "cpu")] == [
        "cuda",
        "cuda",
        "cuda",
        "cpu",
    ]
    assert devices.passed_over("auto") == ""
    assert Honest.made == 1


@pytest.mark.parametrize("kind", LIARS)
def test_a_device_that_lies_is_passed_over_with_a_word(gpu, kind):
    """On auto the processor takes over, and the warning says what differed and where; it is found out once."""
    gpu(kind)
    assert devices.choose_device("auto") == "cpu"
    assert LIARS[kind] in devices.passed_over("auto")
    assert Shard(options(detector={"device": "auto"})).sensors.device == "cpu"
    assert kind.made == 1


@pytest.mark.parametrize("kind", LIARS)
def test_a_device_that_lies_is_refused_where_it_is_asked_for(gpu, kind):
    """On cuda the worker ends with what differed and what to do."""
    gpu(kind)
    with pytest.raises(DeviceError) as error:
        devices.choose_device("cuda")
    assert LIARS[kind] in error.value.what
    assert "nvidia-smi" in error.value.hint


@pytest.mark.parametrize("array", ["flat", "first", "second"])
@pytest.mark.parametrize("place", [0, 700, 1500])
def test_any_weight_or_moment_that_is_off_is_seen(array, place):
    """A thousandth of the largest number in it is enough, in whatever place of whatever model."""

    class Off(Honest):
        def train_step(self, which, x, weight, inputs):
            told = super().train_step(which, x, weight, inputs)
            numbers = getattr(self, array)
            numbers[2, place] += 1e-3 * float(numbers.abs().max())
            return told

    assert largest_difference(Off).too_large


def test_what_is_compared_is_all_that_a_detector_asks_of_a_stack():
    """Every computation that a stack declares is part of the check."""
    asked = set()

    class Asked(Honest):
        def __getattribute__(self, name):
            asked.add(name)
            return super().__getattribute__(name)

    agreement.largest_difference(Asked)
    assert asked >= {
        "append",
        "train_step",
        "plain_steps",
        "apply_gradient",
        "reconstruct_grid",
        "reconstruct_events",
        "state",
    }
