"""Trust in labels: people click on the wrong row, and a wrong label learned costs more than a right one ignored.

On a stream with memory, events come in episodes and so do labels. A label that most labels around it contradict is
doubted, but only where the score contradicts it too: a short anomaly that the score saw, or a calm event inside a
labelled fault, keeps its label.

On a table there are no neighbours. There a labelled anomaly is believed as far as it stands out among the events
labelled normal, by the log odds that a label head fitted without it would give.

Both fail on errors that agree with each other: an episode that is labelled wrong as a whole is believed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.feedback.event_buffer import NORMAL, UNLABELLED, pack_score
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.feedback.event_buffer import EventBuffer

EPISODE = 256  # events of an episode
EPISODE_WORTH = 64.0  # labelled anomalies that all those of one episode count as, at most
NEIGHBOURS = 8  # events on each side
LEAST = 2  # labels among them below which nothing is doubted
MOST_AROUND_NORMAL = 0.6  # share of anomalies around an event labelled normal above which its label is doubted
LEAST_AROUND_ANOMALY = 0.25  # share of anomalies around a labelled anomaly below which its label is doubted

SPEAKS_FOR = 64  # events on each side that a label speaks for, where they have none
SPEAKS_FROM = 0.5  # autocorrelation gate from which on it does: rows of a table say nothing of each other

MIDDLE = 0.5  # p-value above which all labelled anomalies are taken to be wrong
FULL_DOUBT = 20.0  # labelled anomalies at which half of the doubt counts: among few, chance explains as much
LEAST_BELIEF = 0.02  # no label is ignored entirely


def doubtful(
    pending: EventBuffer, rows: NDArray[np.int64], event_numbers: NDArray[np.int64], high: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return (A, B) whether both the neighbours and the score contradict the label of each event.

    Args:
        pending: Holds the labels.
        rows: (A,) different sensors, of streams with memory.
        event_numbers: (A, B) numbers of events.
        high: (A, B) whether each event scored above nearly all events labelled normal.
    """
    out = np.zeros(event_numbers.shape, np.bool_)
    _doubt(rows, event_numbers, high, (pending.count, pending.label), out)
    return out


def novelty(pending: EventBuffer, rows: NDArray[np.int64], event_numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (A, B) the weight, 0 to 1, of each event as a labelled anomaly: an episode is nearly one event.

    All labelled anomalies among the last 256 events up to this one count as 64 at most. Pushing the model away from
    a fault for as long as it lasts costs more on the normal events after it than it gives.

    Args:
        pending: Holds the labels.
        rows: (A,) different sensors, of streams with memory.
        event_numbers: (A, B) numbers of events.
    """
    out = np.empty(event_numbers.shape)
    _novelty(rows, event_numbers, (pending.count, pending.label), out)
    return out


def implied_labels(
    pending: EventBuffer,
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    scores: NDArray[np.float64],
    gate_level: NDArray[np.float64],
    autocorrelation_gate: NDArray[np.float64],
) -> NDArray[np.int8]:
    """Return (A, B) what the labels around say of events without one: 1 normal, -1 an anomaly, 0 nothing.

    An event is taken for an anomaly where the nearest label within 64 events says so, or the nearest label of an event
    that scored as high or as low; for normal where the latter says normal.

    Args:
        pending: Holds the labels.
        rows: (A,) different sensors.
        event_numbers: (A, B) numbers of events.
        scores: (A, B) their log scores.
        gate_level: (S,) log score above which an event scored high.
        autocorrelation_gate: (A,) mean gates; tables get 0.
    """
    out = np.zeros(event_numbers.shape, np.int8)
    sensors = pending.count, pending.last_labelled, gate_level
    rings = pending.label, pending.log_score
    _imply(rows, event_numbers, scores, autocorrelation_gate >= SPEAKS_FROM, sensors, rings, out)
    return out


@kernel
def _imply(
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    scores: NDArray[np.float64],
    with_memory: NDArray[np.bool_],
    sensors: Arrays,
    rings: Arrays,
    out: NDArray[np.int8],
) -> None:
    count, last_labelled, gate_level = sensors
    labels, codes = rings
    capacity = labels.shape[1]
    for a in range(len(rows)):
        s = rows[a]
        if not with_memory[a]:
            continue
        first, stop = max(0, count[s] - capacity), count[s]
        gate = np.int64(pack_score(gate_level[s]))
        for b in range(event_numbers.shape[1]):
            event_number = event_numbers[a, b]
            if labels[s, event_number % capacity] != UNLABELLED or event_number - last_labelled[s] > SPEAKS_FOR:
                continue
            high = scores[a, b] > gate_level[s]
            nearest, alike = 0, 0
            for distance in range(1, SPEAKS_FOR + 1):
                for other in (event_number - distance, event_number + distance):
                    if other < first or other >= stop:
                        continue
                    label = labels[s, other % capacity]
                    if label == UNLABELLED:
                        continue
                    says = 1 if label == NORMAL else -1
                    if nearest == 0:
                        nearest = says
                    if alike == 0 and (codes[s, other % capacity] > gate) == high:
                        alike = says
                if nearest != 0 and alike != 0:
                    break
            if nearest < 0 or alike < 0:
                out[a, b] = -1
            elif alike > 0:
                out[a, b] = 1


@kernel
def _novelty(
    rows: NDArray[np.int64], event_numbers: NDArray[np.int64], figures: Arrays, out: NDArray[np.float64]
) -> None:
    count, labels = figures
    capacity = labels.shape[1]
    for a in range(len(rows)):
        s = rows[a]
        first = max(0, count[s] - capacity)
        for b in range(event_numbers.shape[1]):
            anomalies = 0
            for other in range(max(first, event_numbers[a, b] - EPISODE + 1), event_numbers[a, b] + 1):
                anomalies += labels[s, other % capacity] > NORMAL
            out[a, b] = min(1.0, EPISODE_WORTH / max(anomalies, 1))


@kernel
def _doubt(
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    high: NDArray[np.bool_],
    figures: Arrays,
    out: NDArray[np.bool_],
) -> None:
    count, labels = figures
    capacity = labels.shape[1]
    for a in range(len(rows)):
        s = rows[a]
        first, stop = max(0, count[s] - capacity), count[s]
        for b in range(event_numbers.shape[1]):
            event_number = event_numbers[a, b]
            label = labels[s, event_number % capacity]
            if label < NORMAL or (label > NORMAL) == high[a, b]:
                continue
            anomalies, labelled = 0, 0
            for other in range(max(first, event_number - NEIGHBOURS), min(stop, event_number + NEIGHBOURS + 1)):
                other_label = labels[s, other % capacity]
                if other != event_number and other_label >= NORMAL:
                    labelled += 1
                    anomalies += other_label > NORMAL
            share = (anomalies + 0.5) / (labelled + 1)
            if labelled >= LEAST:
                out[a, b] = share > MOST_AROUND_NORMAL if label == NORMAL else share < LEAST_AROUND_ANOMALY


def believed(anomalies: NDArray[np.float64], normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (A,) the belief in each labelled anomaly, .02 to 1: 1 less its local false discovery rate.

    Local false discovery rate: B. Efron et al., "Empirical Bayes analysis of a microarray experiment", JASA 2001. The
    p-value of an anomaly is its rank among the normals. The p-values of wrong labels are uniform, those of true ones
    small: the upper half shows the share of wrong labels (J. D. Storey, J. R. Stat. Soc. B 2002), and the probability
    of a wrong label at a p-value is that share divided by the density of all p-values there, which falls
    (U. Grenander, Skand. Aktuarietidskr. 1956).

    Args:
        anomalies: (A,) log odds of labelled anomalies, each from a fit that did not see it; higher is more anomalous.
        normals: (N,) log odds of labelled normals.
    """
    count = len(anomalies)
    above = len(normals) - np.searchsorted(np.sort(normals), anomalies, side="left")
    p = (above + 1) / (len(normals) + 1)
    wrong = min(1.0, float((p > MIDDLE).sum()) / (count * (1 - MIDDLE)))
    order = np.argsort(p, kind="stable")
    density = _falling(np.diff(p[order], prepend=0.0, append=1.0))[:count]
    doubt = np.empty(count)
    doubt[order] = np.minimum(1.0, wrong / density)
    return np.maximum(1 - doubt * count / (count + FULL_DOUBT), LEAST_BELIEF)


@kernel
def _falling(widths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (K,) the most likely falling density where each of K intervals (K,) holds the same share of events."""
    share = 1 / len(widths)
    mass, width, held = np.empty(len(widths)), np.empty(len(widths)), np.empty(len(widths), np.int64)
    blocks = 0
    for interval in widths:  # neighbours that rise are pooled (pool adjacent violators)
        mass[blocks], width[blocks], held[blocks] = share, max(interval, 1e-9), 1
        blocks += 1
        while blocks > 1 and mass[blocks - 2] * width[blocks - 1] <= mass[blocks - 1] * width[blocks - 2]:
            blocks -= 1
            mass[blocks - 1] += mass[blocks]
            width[blocks - 1] += width[blocks]
            held[blocks - 1] += held[blocks]
    out, at = np.empty(len(widths)), 0
    for block in range(blocks):
        out[at : at + held[block]] = mass[block] / width[block]
        at += held[block]
    return out
