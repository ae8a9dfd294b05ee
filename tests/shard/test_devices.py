"""The check of a GPU against the CPU, with model stacks that stand in for good and bad GPUs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stream_ad.detector.model import device_check as agreement
from stream_ad.detector.model import online_autoencoder as network
from stream_ad.detector.model.device_check import MOST, largest_difference
from stream_ad.detector.model.model_stack import Stack
from stream_ad.detector.model.torch_autoencoder import Autoencoder
from stream_ad.errors import DeviceError
from stream_ad.shard import devices
from stream_ad.shard.shard import Shard
from tests.support.streams import options


class Honest(Autoencoder):
    """The operations of torch on the CPU, which round differently from the compiled kernels, as those of a GPU do."""

    made = 0

    def __init__(self, width: int, *, rate: float) -> None:
        super().__init__(width, device="cpu", rate=rate)
        type(self).made += 1
        self.calls = 0


class Shifted(Honest):
    """One weight is off by a thousandth after the first step."""

    def train_step(self, which, x, weight, inputs):
        losses = super().train_step(which, x, weight, inputs)
        self.calls += 1
        if self.calls == 1:
            self.flat[1, 5] += 1e-3
        return losses


class ShiftedLater(Shifted):
    """One weight is off once operations are recorded and replayed."""

    def train_step(self, which, x, weight, inputs):
        self.calls += 1
        losses = Honest.train_step(self, which, x, weight, inputs)
        if self.calls >= 4:
            self.flat[1, 5] += 1e-3
        return losses


class Coarse(Honest):
    """Products have half the precision."""

    def forward(self, flat, x):
        return super().forward(flat.to(torch.bfloat16).float(), x)


class Nothing(Honest):
    """The reconstruction of a single event is NaN."""

    def reconstruct_events(self, models, scaled):
        out = super().reconstruct_events(models, scaled)
        out[7, 3] = np.nan
        return out


class Raising(Honest):
    """A step runs out of memory."""

    def train_step(self, which, x, weight, inputs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore of it")


FAULTY = {
    Shifted: "in the weights after step 1",
    ShiftedLater: "in the weights after step 4",
    Coarse: "in the ",
    Nothing: "no numbers in the reconstructions of single events",
    Raising: "raised OutOfMemoryError (CUDA out of memory. Tried to allocate 2.00 GiB.)",
}


@pytest.fixture
def gpu(monkeypatch):
    """A function that replaces the stack of a GPU by one of a given class."""

    def put(kind: type[Honest]) -> None:
        kind.made = 0
        real = network.stack_on
        monkeypatch.setattr(
            network, "stack_on", lambda device, width, *, rate: kind(width, rate=rate) if device == "cuda"
            else real(device, width, rate=rate)
        )  # fmt: skip
        monkeypatch.setattr(devices, "_torch_finds_gpu", lambda *, asked: True)

    devices._fault.cache_clear()
    yield put
    devices._fault.cache_clear()


def test_rounding_is_far_below_the_limit():
    """The same operations in another order differ by less than a tenth of the limit."""
    difference = largest_difference(Honest)
    assert not difference.too_large
    assert 0 < difference.share < MOST / 10


def test_a_device_that_agrees_is_used_and_checked_once(gpu):
    """A good GPU is checked once, however many shards need it and by whatever setting."""
    gpu(Honest)
    assert [devices.choose_device(wanted) for wanted in ("auto", "cuda", "auto", "cpu")] == [
        "cuda",
        "cuda",
        "cuda",
        "cpu",
    ]
    assert devices.passed_over("auto") == ""
    assert Honest.made == 1


@pytest.mark.parametrize("kind", FAULTY)
def test_a_faulty_device_is_not_used_and_a_warning_says_why(gpu, kind):
    """With auto the CPU is used, and the warning says what differed and where; the check runs once."""
    gpu(kind)
    assert devices.choose_device("auto") == "cpu"
    assert FAULTY[kind] in devices.passed_over("auto")
    assert Shard(options(detector={"device": "auto"})).sensors.device == "cpu"
    assert kind.made == 1


@pytest.mark.parametrize("kind", FAULTY)
def test_a_faulty_device_is_an_error_where_it_is_required(gpu, kind):
    """With cuda the error says what differed and what to do."""
    gpu(kind)
    with pytest.raises(DeviceError) as error:
        devices.choose_device("cuda")
    assert FAULTY[kind] in error.value.what
    assert "nvidia-smi" in error.value.hint


@pytest.mark.parametrize("array", ["flat", "first", "second"])
@pytest.mark.parametrize("column", [0, 700, 1500])
def test_any_wrong_weight_or_moment_is_detected(array, column):
    """An error of a thousandth of the largest value is detected, in any column of any model."""

    class Off(Honest):
        def train_step(self, which, x, weight, inputs):
            losses = super().train_step(which, x, weight, inputs)
            numbers = getattr(self, array)
            numbers[2, column] += 1e-3 * float(numbers.abs().max())
            return losses

    assert largest_difference(Off).too_large


def test_the_check_covers_all_operations_of_a_stack():
    """Every computation that a stack declares is part of the check."""
    asked = set()

    class Asked(Honest):
        def __getattribute__(self, name):
            asked.add(name)
            return super().__getattribute__(name)

    agreement.largest_difference(Asked)
    computations = {name for name in Stack.__abstractmethods__ if not name.startswith("_")}
    assert "train_step" in computations
    assert asked >= computations | {"append", "state"}
