"""The canonical log line."""

from __future__ import annotations

from structlog.testing import capture_logs

from stream_ad.telemetry.throughput_log import ThroughputLog
from stream_ad.testing import ManualClock


def test_one_line_for_a_second_of_work():
    """However many steps a second has, it gets one line, with their sums, the slowest event and the busy share."""
    clock = ManualClock()
    line = ThroughputLog(clock)
    with capture_logs() as logs:
        for _ in range(8):
            line.add({"events": 5, "labels": 0}, busy_s=0.05, delay_s=0.2)
            line.log(lag=7)
            clock.advance(0.125)
        line.add({"events": 1}, busy_s=0.0, delay_s=1.5)
        line.log(lag=7)
        line.log(lag=7)
    (only,) = logs
    assert (only["event"], only["events"], only["lag"], only["slowest_delay_s"]) == ("work", 41, 7, 1.5)
    assert only["busy"] == 0.4
    assert "labels" not in only


def test_nothing_done_nothing_logged_and_the_rest_comes_at_the_end():
    """An idle worker is silent; what is left of a second is logged when the worker ends."""
    clock = ManualClock()
    line = ThroughputLog(clock)
    with capture_logs() as logs:
        clock.advance(3600)
        line.log()
        line.log(force=True)
        assert logs == []
        line.add({"events": 2}, busy_s=0.01)
        line.log()
        assert logs == []
        line.log(force=True)
    assert [one["events"] for one in logs] == [2]
