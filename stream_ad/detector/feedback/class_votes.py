"""Which classes an alarm is suspected of, by the votes of labelled faults for their classes.

The more a fault is like the alarm, the more its vote counts: exp(6 (cosine of the patterns - 1) - 4 (squared distance
of the shapes)). A constant vote goes to no class, so that the probabilities sum to less than 1. How often a class was
labelled is its prior, for each fault votes; a sensor's own faults vote twice, once as those that it keeps and once
among those that are shared.

Where a class is a name for unlike things, likeness says nothing, and how frequent the classes are says more. Each
shared fault is therefore named by the others, and the probabilities are mixed with the frequencies as far as that
makes the left-out faults' Brier score best.

It fails where all faults of a class were alike but the next is not, and where few faults are known.
"""

from __future__ import annotations

import numpy as np

from stream_ad.detector.feedback.event_buffer import UNLABELLED
from stream_ad.kernels.jit import Arrays, kernel

PATTERN_SHARPNESS, SHAPE_SHARPNESS = 6.0, 4.0
NONE_VOTE = 0.05  # a twentieth of that of a fault just like the alarm
LEAST_PROBABILITY, MOST_SUSPECTED = 0.1, 3
LEAST_SQUARE = 1e-18  # of the product of the lengths of two patterns
FIRST_TRUST, FIRST_WEIGHT = 0.5, 4.0  # trust in likeness where no fault is known, and the squared error it counts for


@kernel
def suspected(present: Arrays, s: int, faults: Arrays, trust: float, tally: Arrays, out: Arrays) -> None:
    """Fill in the classes that an alarm is suspected of.

    Args:
        present: (S, 3, F) patterns and (S, 7) shapes of alarms.
        s: Which of them.
        faults: Faults as ``_vote`` takes them, the first of the sensor's own among them and the one after the last, and
            shared faults.
        trust: In likeness, 0 to 1.
        tally: (C,) each, with room for as many classes as faults are known: classes, votes, numbers of faults.
        out: (3,) each: filled with classes, the most probable first, and their probabilities; others are left alone.
    """
    own, first, stop, shared = faults
    voted_classes, votes, counts = tally
    classes, probabilities = out
    number = _vote(present, s, own, (first, stop), -1, tally, 0)
    number = _vote(present, s, shared, (0, len(shared[0])), -1, tally, number)
    total, all_counts = NONE_VOTE, 1.0
    for i in range(number):
        total += votes[i]
        all_counts += counts[i]
    for i in range(number):
        votes[i] = trust * votes[i] / total + (1 - trust) * counts[i] / all_counts
    for place in range(len(classes)):
        best = 0
        for i in range(1, number):
            if votes[i] > votes[best] or (votes[i] == votes[best] and voted_classes[i] < voted_classes[best]):
                best = i
        if number == 0 or votes[best] < LEAST_PROBABILITY:
            break
        classes[place], probabilities[place] = voted_classes[best], votes[best]
        votes[best] = -1.0


@kernel
def left_out_trust(faults: Arrays) -> float:
    """Return the trust in likeness, 0 to 1, with which P faults are best named by the others.

    Args:
        faults: As ``_vote`` takes them.
    """
    label, pattern, shape = faults
    size = len(label)
    tally = np.empty(size, np.int16), np.empty(size), np.empty(size)
    voted_classes, votes, counts = tally
    explained, squares = FIRST_TRUST * FIRST_WEIGHT, FIRST_WEIGHT
    for left_out in range(size):
        number = _vote((pattern, shape), left_out, faults, (0, size), left_out, tally, 0)
        total = NONE_VOTE
        for i in range(number):
            total += votes[i]
        for i in range(number):
            frequency = counts[i] / size
            gain = votes[i] / total - frequency
            true = 1.0 if voted_classes[i] == label[left_out] else 0.0
            explained += gain * (true - frequency)
            squares += gain * gain
    return min(max(explained / squares, 0.0), 1.0)


@kernel
def _vote(
    present: Arrays, s: int, faults: Arrays, voters: tuple[int, int], left_out: int, tally: Arrays, number: int
) -> int:
    """Add the votes of faults for their classes.

    Args:
        present: (S, 3, F) patterns and (S, 7) shapes of alarms.
        s: Which of them.
        faults: (P,) classes, -1 for none; (P, 3, F) patterns; (P, 7) shapes.
        voters: The first fault that votes, and the one after the last.
        left_out: One that does not, -1 for none.
        tally: (C,) each: classes found so far, their votes, and their numbers of faults.
        number: How many classes were found.

    Returns:
        The number of classes found by now.
    """
    pattern, shape = present
    label, known_pattern, known_shape = faults
    voted_classes, votes, counts = tally
    for at in range(voters[0], voters[1]):
        if label[at] == UNLABELLED or at == left_out:
            continue
        product = own = other = distance = 0.0
        for kind in range(pattern.shape[1]):
            for f in range(pattern.shape[2]):
                a, b = np.float64(pattern[s, kind, f]), np.float64(known_pattern[at, kind, f])
                product += a * b
                own += a * a
                other += b * b
        for i in range(shape.shape[1]):
            distance += (np.float64(shape[s, i]) - np.float64(known_shape[at, i])) ** 2
        cosine = product / np.sqrt(max(own * other, LEAST_SQUARE))
        place = 0
        while place < number and voted_classes[place] != label[at]:
            place += 1
        if place == number:
            voted_classes[place], votes[place], counts[place] = label[at], 0.0, 0.0
            number += 1
        votes[place] += np.exp(PATTERN_SHARPNESS * (cosine - 1) - SHAPE_SHARPNESS * distance)
        counts[place] += 1
    return number
