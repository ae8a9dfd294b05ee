"""The overview dashboard: is it working, which incidents, is the promise kept, how late, how good by the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boards import board, watching
from panels import BAD, GOOD, JOB, NOTICE, bars, lines, stat_panel, words

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

WHICH = """\
A sensor is never a label of a metric: thousands of them would drown Prometheus, and the loudest change all the time.
These say which sensors they are about:

- **most incidents lately**, with kind, severity and features, from each worker: `docker compose exec worker python -c
  "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9108/top').read().decode())"`
- **incidents**, a record when one opens, gets worse or closes: topic `anomaly-incidents`, or `stream-ad incidents`
- **every score**: topic `anomaly-scores`, keyed by sensor, or `stream-ad scores`
"""


def overview() -> Dashboard:
    return watching(
        board(
            "Overview",
            uid="stream-ad-overview",
            says="Is it working, which incidents, is the promise kept, how late, how good according to the labels.",
            rows={
                "Is it working?": _working(),
                "Which incidents?": _incidents(),
                "Is the promise kept?": _promise(),
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


def _incidents() -> list[object]:
    return [
        lines(
            "Open incidents, by severity",
            {"{{severity}}": f"sum by (severity) (stream_ad_open_incidents{{{JOB}}})"},
            unit="short",
            stacked=True,
            says="What waits for somebody to look at it. Critical: the alarm is far above what opens an incident, or "
            "lasts very long.",
            runbook="StreamADCriticalIncidents",
        ),
        lines(
            "Incidents opened, by kind",
            {"{{kind}}": f"sum by (kind) (increase(stream_ad_incidents_opened_total{{{JOB}}}[$__rate_interval]))"},
            unit="short",
            stacked=True,
            says="spike: single events; sustained: a long run of slightly unusual ones; stuck: readings that no longer "
            "change.",
        ),
        lines(
            "Incidents closed, by reason",
            {"{{reason}}": f"sum by (reason) (increase(stream_ad_incidents_closed_total{{{JOB}}}[$__rate_interval]))"},
            unit="short",
            stacked=True,
            says="over: the alarm ended; accepted: a lasting change is the new normal; judged: a label said normal; "
            "sensor_gone: the sensor was forgotten.",
        ),
        lines(
            "Sensors with an open incident",
            {
                "alarmed": f"sum(stream_ad_alarmed_sensors{{{JOB}}})",
                "in warm-up": f"sum(stream_ad_warming_sensors{{{JOB}}})",
                "all": f"sum(stream_ad_sensors{{{JOB}}})",
            },
            unit="short",
            says="How much of the plant is in alarm. Sensors in warm-up open no incident.",
        ),
        lines(
            "Recent incidents",
            {
                "all sensors": f"sum(stream_ad_recent_incidents{{{JOB}}})",
                "the sensor with most": f"max(stream_ad_recent_incidents_of_top_sensor{{{JOB}}})",
            },
            unit="short",
            says="Incidents opened, each counting half as much every day. Where one sensor has most of them, /top on "
            "its worker names it.",
            runbook="StreamADOneSensorAlarms",
        ),
        stat_panel(
            "Major or critical incidents open now",
            f'sum(stream_ad_open_incidents{{{JOB}, severity=~"major|critical"}})',
            unit="short",
            span=8,
            steps=((None, GOOD), (1, NOTICE)),
            says="Those that an alert tells of. Minor ones are in the topic of incidents alone.",
            runbook="StreamADMajorIncidents",
        ),
    ]


def _promise() -> list[object]:
    return [
        lines(
            "False incidents of 7 days, promised and observed",
            {
                "promised at most": f"job:stream_ad_promised_false_incidents:increase7d{{{JOB}}}",
                "observed: false or without a label": f"job:stream_ad_observed_incidents:increase7d{{{JOB}}}",
            },
            unit="short",
            span=12,
            says="What the budget allows for the events of the last 7 days, and the incidents opened less those that a "
            "label called an anomaly. A machine that really changes costs an incident, which no budget foresees.",
            runbook="StreamADPromiseBroken",
        ),
        stat_panel(
            "Share of the budget spent",
            f"job:stream_ad_budget_spent:ratio7d{{{JOB}}}",
            unit="percentunit",
            span=4,
            steps=((None, GOOD), (1, NOTICE), (3, BAD)),
            says="Observed over promised, last 7 days. Label incidents that were real: they do not count.",
            runbook="StreamADPromiseBroken",
            no_value="nothing promised yet",
        ),
        bars(
            "Incidents by their first label, last 7 days",
            "{{label}}",
            f"sum by (label) (increase(stream_ad_labelled_incidents_total{{{JOB}}}[7d]))",
            unit="short",
            says="normal: they were false. Incidents without a label are in neither.",
            runbook="StreamADPromiseBroken",
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
            says="Share of the anomalies of a class, as people named them, that had scored no higher than one normal "
            "event in a thousand does; older labels count less. Of normal: those that had scored higher, among what "
            "people looked at, which is mostly alarms.",
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
