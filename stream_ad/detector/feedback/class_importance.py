"""Class importance: how badly the detector currently does on each class, as weights of the loss.

Class 0 is normal, 1 to K are anomaly classes. The classifier is "score >= 1"; a miss is a normal event at 1 or above
or an anomaly below 1, so the miss rate of normal is the false-alarm rate. The decision that counts is the one that
was published, not that of the model after it has learned.

It fails when labels are not representative: where people label alarms only, every anomaly that is labelled was hit,
and misses stay unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRIOR = 10.0  # labels, half of them missed, that every class begins with
LOWEST, HIGHEST = 0.1, 10.0  # limits of a weight: no class is ignored, and none dominates the loss


def ema(importance: NDArray[np.float64], classes: NDArray[np.int64], missed: NDArray[np.bool_], rate: float) -> None:
    """Apply the plain rule in place: importance <- rate · FNR + (1 - rate) · importance, over the classes present.

    It fails in two ways, kept because they are the rule: the importance of a mastered class decays towards 0 (0.5
    after 69 batches at rate .01, 0.01 after 459), and the class is then forgotten; and one label moves it as much as
    a thousand.

    Args:
        importance: (K + 1,) importance of each class, between 0 and 1; changed in place.
        classes: (L,) class of each labelled event of the batch, each between 0 and K.
        missed: (L,) whether the published decision was wrong.
        rate: Of the moving average, between 0 and 1.

    Raises:
        ValueError: A class is out of range.
    """
    if len(classes) == 0:
        return
    if classes.min() < 0 or classes.max() >= len(importance):
        raise ValueError(
            f"classes must lie between 0 and {len(importance) - 1}, got {classes.min()} to {classes.max()}"
        )
    number = np.bincount(classes, minlength=len(importance))
    misses = np.bincount(classes, weights=missed, minlength=len(importance))
    present = number > 0
    importance[present] = rate * (misses / np.maximum(number, 1))[present] + (1 - rate) * importance[present]


class ClassImportance:
    """Decayed counts of labels and misses per class, and the class weights computed from them.

    The default rule ``counts``, with N labels and M misses of a class: f = (M + 5) / (N + 10), w = floor +
    (1 - floor) f, normalised so that the label-weighted mean is 1, clipped to [.1, 10]. A mastered class keeps the
    floor.
    """

    def __init__(self, *, rule: str, decay: float, floor: float, rate: float) -> None:
        self.rule, self.decay, self.floor, self.rate = rule, decay, floor, rate
        self.labels = np.zeros(1)  # (K + 1,) decayed number of labels
        self.misses = np.zeros(1)  # (K + 1,) decayed number of misses
        self.average = np.ones(1)  # (K + 1,) importance by the plain rule

    def classes(self, count: int) -> None:
        """Make room for classes 0 to ``count`` - 1; a class without labels weighs as one half missed."""
        more = count - len(self.labels)
        if more > 0:
            self.labels = np.concatenate([self.labels, np.zeros(more)])
            self.misses = np.concatenate([self.misses, np.zeros(more)])
            self.average = np.concatenate([self.average, np.ones(more)])

    def update(self, classes: NDArray[np.int64], missed: NDArray[np.bool_]) -> None:
        """Count labelled events, in the order of their labels.

        Args:
            classes: (L,) class of each event, below the number of classes.
            missed: (L,) whether the published decision was wrong.
        """
        if len(classes) == 0:
            return
        ema(self.average, classes, missed, self.rate)
        fade = self.decay ** np.arange(len(classes) - 1, -1, -1)  # the decay counts labels of any class
        total = self.decay ** len(classes)
        size = len(self.labels)
        self.labels = total * self.labels + np.bincount(classes, weights=fade, minlength=size)
        self.misses = total * self.misses + np.bincount(classes, weights=fade * missed, minlength=size)

    def miss_rate(self) -> NDArray[np.float64]:
        """Return (K + 1,) the decayed share of missed labels, 0 to 1; NaN for a class without labels."""
        with np.errstate(invalid="ignore"):
            return np.where(self.labels > 1e-9, self.misses / np.maximum(self.labels, 1e-9), np.nan)

    def weights(self) -> NDArray[np.float64]:
        """Return (K + 1,) the weight of each class in the loss, above 0; higher for classes often missed."""
        if self.rule == "off":
            return np.ones(len(self.labels))
        if self.rule == "ema":
            return self.average.copy()
        f = (self.misses + PRIOR / 2) / (self.labels + PRIOR)
        w = self.floor + (1 - self.floor) * f
        total = self.labels.sum()
        mean = (self.labels * w).sum() / total if total > 0 else w.mean()
        return np.clip(w / max(mean, 1e-12), LOWEST, HIGHEST)
