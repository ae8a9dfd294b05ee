"""A running z-score that is given the best threshold for as many false incidents as something else had."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from alarm_runs import counted_code

from stream_ad.evaluation.backtest.baselines import RunningZ
from stream_ad.evaluation.backtest.incident_figures import count, faults_of

if TYPE_CHECKING:
    from stream_ad.evaluation.backtest.stream import Stream


def detected_at_false_incidents(stream: Stream, allowed: int, quiet_events: int) -> int:
    """Return the most faults that a running z-score detects with no more false incidents than ``allowed``.

    The threshold is lowered from above everything until there are more; it is chosen in hindsight.
    """
    score = RunningZ().score(stream.sensor, stream.values(0, len(stream)))
    code = counted_code(stream)
    faults = faults_of(stream.sensor, code)
    most = 0
    for threshold in np.unique(score[code >= 0])[::-1].tolist():
        figures = count(
            stream.sensor,
            code,
            (score >= threshold) & (code >= 0),
            budget=0.0,
            quiet_events=quiet_events,
            faults=faults,
        )
        if figures.false > allowed:
            break
        most = max(most, figures.faults.detected)
    return most
