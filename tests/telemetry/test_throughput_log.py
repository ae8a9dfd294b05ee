"""Promises of the log line about work."""

from __future__ import annotations

from structlog.testing import capture_logs

from stream_ad.telemetry.throughput_log import ThroughputLog
from stream_ad.testing import ManualClock


def test_one_line_for_a_second_of_work():
    """All steps of a second share one line, with their sums, the slowest event and the busy share."""
    clock = ManualClock()
    throughput = ThroughputLog(clock)
    with capture_logs() as logs:
        for _ in range(8):
            throughput.add({"events": 5, "labels": 0}, busy_s=0.05, delay_s=0.2)
            throughput.log(lag=7)
            clock.advance(0.125)
        throughput.add({"events": 1}, busy_s=0.0, delay_s=1.5)
        throughput.log(lag=7)
        throughput.log(lag=7)
    (only,) = logs
    assert (only["event"], only["events"], only["lag"], only["slowest_delay_s"]) == ("work", 41, 7, 1.5)
    assert only["busy"] == 0.4
    assert "labels" not in only


def test_idle_logs_nothing_and_the_rest_is_logged_at_the_end():
    """An idle worker is silent; what is left of a second is logged when the worker ends."""
    clock = ManualClock()
    throughput = ThroughputLog(clock)
    with capture_logs() as logs:
        clock.advance(3600)
        throughput.log()
        throughput.log(force=True)
        assert logs == []
        throughput.add({"events": 2}, busy_s=0.01)
        throughput.log()
        assert logs == []
        throughput.log(force=True)
    assert [line["events"] for line in logs] == [2]
