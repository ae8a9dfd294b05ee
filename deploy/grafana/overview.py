"""The overview dashboard: is it working, how many anomalies, how late, how good according to the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boards import board, watching
from panels import BAD, GOOD, JOB, NOTICE, bars, lines, stat_panel, words

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

WHICH = """\
A sensor is never a label of a metric: thousands of them would drown Prometheus, and the loudest change all the time.
The scores say which sensors they are about:

- **lately loudest**, with score and features, from each worker: `docker compose exec worker python -c
  "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9108/top').read().decode())"`
- **incidents**, one record when one opens and one when it closes: topic `anomaly-incidents`
- **every score** with the features that caused it: topic `anomaly-scores`, keyed by sensor
"""


def overview() -> Dashboard:
    return watching(
        board(
            "Overview",
            uid="stream-ad-overview",
            says="Is it working, how many anomalies, how late, how good according to the labels.",
            rows={
                "Is it working?": _working(),
                "How many anomalies?": _anomalies(),
                "How late?": _late(),
                "How good, according to the labels?": _good(),
                "Which sensors?": [words("Which sensors?", WHICH, height=6)],
            },
        )
    )


def _working() -> list[object]:
    return [
        stat_panel(
            "Workers ready",
            f"sum(stream_ad_ready{{{JOB}}}) or vector(0)",
            unit="short",
            says="Workers that score every partition they own. At 0 nothing is scored.",
            steps=((None, BAD), (1, GOOD)),
            runbook="StreamADDown",
        ),
        stat_panel(
            "Partitions without owner",
            f"job:stream_ad_shards_known:count1h{{{JOB}}} - job:stream_ad_shards_owned:count{{{JOB}}}",
            unit="short",
            says="Partitions that a worker owned within the last hour and none owns now. Should be 0, except for "
            "about a minute.",
            steps=((None, GOOD), (1, BAD)),
            runbook="StreamADShardWithoutOwner",
        ),
        stat_panel(
            "Alerts firing",
            'count(ALERTS{alertstate="firing", alertname=~"StreamAD.+"}) or vector(0)',
            unit="short",
            says="All alerts of stream-ad that fire now. Prometheus and Alertmanager list them; each has a section "
            "in the runbook.",
            steps=((None, GOOD), (1, NOTICE), (3, BAD)),
        ),
        stat_panel(
            "Events",
            f'sum(rate(stream_ad_records_total{{{JOB}, side="events"}}[$__rate_interval]))',
            unit="cps",
            decimals=1,
            says="Events read and committed per second. At 0 either nothing is produced or it goes elsewhere.",
            runbook="StreamADNoEvents",
        ),
        stat_panel(
            "Backlog",
            f'sum(job_side:stream_ad_lag_records:sum{{{JOB}, side="events"}})',
            unit="short",
            says="Events waiting to be scored. If it grows, add workers, up to one for each partition.",
            runbook="StreamADLagGrows",
        ),
        stat_panel(
            "Delay, 99 % below",
            f"job:stream_ad_event_delay_seconds:p99_2m{{{JOB}}}",
            unit="s",
            says="From the record time of an event to the commit of its score. The objective is one second.",
            steps=((None, GOOD), (2, NOTICE), (30, BAD)),
            runbook="StreamADDelayed",
            no_value="no events",
        ),
    ]


def _anomalies() -> list[object]:
    return [
        lines(
            "Share of events that are anomalies",
            {
                "anomalies": f"sum(rate(stream_ad_anomalies_total{{{JOB}}}[$__rate_interval])) / "
                f"(sum(rate(stream_ad_scores_total{{{JOB}}}[$__rate_interval])) > 0)",
                "tolerated false alarms": f"max(stream_ad_tolerated_false_alarm_ratio{{{JOB}}})",
            },
            unit="percentunit",
            says="Events that score 1 or above. Where nothing is wrong it stays near one in a thousand.",
            runbook="StreamADAnomaliesMany",
        ),
        lines(
            "Incidents",
            {
                "opened": f'sum(increase(stream_ad_incidents_total{{{JOB}, state="open"}}[$__rate_interval]))',
                "closed": f'sum(increase(stream_ad_incidents_total{{{JOB}, state="closed"}}[$__rate_interval]))',
            },
            unit="short",
            says="Runs of anomalies of one sensor, which are what people look at. Both curves should keep pace "
            "with each other.",
        ),
        lines(
            "Sensors with an open incident",
            {
                "alarmed": f"sum(stream_ad_alarmed_sensors{{{JOB}}})",
                "in warm-up": f"sum(stream_ad_warming_sensors{{{JOB}}})",
                "all": f"sum(stream_ad_sensors{{{JOB}}})",
            },
            unit="short",
            says="How much of the plant is in alarm. Scores of sensors in warm-up say so; take them with caution.",
        ),
    ]


def _late() -> list[object]:
    return [
        lines(
            "From event to score",
            {
                "half below": f"job:stream_ad_event_delay_seconds:p50_2m{{{JOB}}}",
                "99 % below": f"job:stream_ad_event_delay_seconds:p99_2m{{{JOB}}}",
            },
            unit="s",
            logarithmic=True,
            limit=1,
            span=12,
            says="Record time of an event to the commit of its score. Old records that are replayed count with "
            "their age.",
            runbook="StreamADDelayed",
        ),
        lines(
            "Records waiting",
            {"{{side}}": f"job_side:stream_ad_lag_records:sum{{{JOB}}}"},
            unit="short",
            span=12,
            says="Backlog of both inputs. Labels wait for earlier events, and events for earlier labels.",
            runbook="StreamADLagGrows",
        ),
    ]


def _good() -> list[object]:
    return [
        bars(
            "Missed, by class",
            "{{class}}",
            f"job_class:stream_ad_miss_ratio:avg{{{JOB}}}",
            unit="percentunit",
            maximum=1,
            steps=((None, GOOD), (0.3, NOTICE), (0.5, BAD)),
            says="Share of the anomalies of a class, as people named them, that had scored below 1; older labels "
            "count less. Of normal: "
            "false alarms among what people looked at, which is mostly alarms, so it is not a false-alarm rate.",
            runbook="StreamADRecallDecayed",
        ),
        lines(
            "Labels",
            {"{{outcome}}": f"sum by (outcome) (increase(stream_ad_labels_total{{{JOB}}}[$__rate_interval]))"},
            unit="short",
            stacked=True,
            says="Labels by outcome. late and unknown_sensor taught nothing; the runbook says why.",
            runbook="StreamADLabelsMissTheirEvents",
        ),
        lines(
            "How late labels come",
            {
                "mean": f"sum(rate(stream_ad_label_delay_seconds_sum{{{JOB}}}[1h]))"
                f" / (sum(rate(stream_ad_label_delay_seconds_count{{{JOB}}}[1h])) > 0)"
            },
            unit="s",
            says="Event time to the record time of its label. The label horizon must be longer than what is usual.",
            runbook="StreamADLabelSilence",
        ),
    ]
