"""The detector dashboard: scores, usual errors, loss, class importance, outcomes of labels, learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boards import board, watching
from panels import BAD, GOOD, JOB, NOTICE, bars, heat, lines, stat_panel

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard


def detector() -> Dashboard:
    return watching(
        board(
            "Detector",
            uid="stream-ad-detector",
            says="What the models do: scores and usual errors, what is learned and what is kept out, labels.",
            rows={
                "Scores": _scores(),
                "Learning": _learning(),
                "Labels": _labels(),
                "Sensors": _sensors(),
            },
        )
    )


def _scores() -> list[object]:
    return [
        heat(
            "Scores",
            "stream_ad_score",
            unit="short",
            says="How scores are distributed, between 0 and 1, on a scale that no level moves. A bulk that creeps "
            "towards 1 says that the models no longer fit; one that never moves says that the readings do not move "
            "either.",
            runbook="StreamADIncidentsNone",
        ),
        lines(
            "Scores: half, 99 % and 99.9 % below",
            {
                f"{share:.1%}": f"histogram_quantile({share}, "
                f"sum by (le) (rate(stream_ad_score_bucket{{{JOB}}}[$__rate_interval])))"
                for share in (0.5, 0.99, 0.999)
            },
            unit="short",
            maximum=1,
            span=12,
            says="The score ranks events; it opens no incident. What is usual for these sensors should stay where it "
            "is.",
        ),
        lines(
            "Usual error",
            {"partition {{shard}}": f"max by (shard) (stream_ad_threshold{{{JOB}}})"},
            unit="short",
            logarithmic=True,
            span=12,
            says="The raw error that one normal event in a thousand exceeds, median over the sensors of a partition. "
            "It may fall while models get better; after a rise of ten times they learn what they should not.",
            runbook="StreamADThresholdRunsAway",
        ),
        lines(
            "Scored events, by phase of their sensor",
            {"{{phase}}": f"sum by (phase) (rate(stream_ad_scores_total{{{JOB}}}[$__rate_interval]))"},
            unit="cps",
            stacked=True,
            span=12,
            says="The first events of a sensor are its warm-up: learned at once, scores to be taken with caution.",
        ),
        lines(
            "Share of events that alarm",
            {
                "alarm": f"sum(rate(stream_ad_anomalies_total{{{JOB}}}[$__rate_interval])) / "
                f"(sum(rate(stream_ad_scores_total{{{JOB}}}[$__rate_interval])) > 0)",
            },
            unit="percentunit",
            span=12,
            says="Live events inside incidents. Nothing is promised of it: a fault that lasts has many such events.",
        ),
        stat_panel(
            "Incidents of the last 7 days",
            f"sum(increase(stream_ad_incidents_opened_total{{{JOB}}}[7d]))",
            unit="short",
            decimals=0,
            span=12,
            says="Incidents opened, of all kinds and severities.",
            runbook="StreamADIncidentsNone",
        ),
    ]


def _learning() -> list[object]:
    return [
        heat(
            "Loss",
            "stream_ad_learn_loss",
            unit="short",
            says="Mean loss of each learn batch. It falls during warm-up, then stays; a lasting rise is a change of "
            "the plant.",
        ),
        lines(
            "What becomes of events",
            {"{{outcome}}": f"sum by (outcome) (rate(stream_ad_resolved_events_total{{{JOB}}}[$__rate_interval]))"},
            unit="cps",
            stacked=True,
            span=12,
            says="Learned as normal or as an anomaly; kept out by the gate (unlabelled, and the score is not usual); "
            "dropped because the bound on waiting events took effect.",
            runbook="StreamADGateClosed",
        ),
        stat_panel(
            "Kept out by the gate",
            f"job:stream_ad_dropped_by_gate:ratio1h{{{JOB}}}",
            unit="percentunit",
            span=8,
            steps=((None, GOOD), (0.1, NOTICE), (0.3, BAD)),
            says="Share of the events decided within the last hour. When most are kept out, models cannot follow a "
            "change without labels.",
            runbook="StreamADGateClosed",
            no_value="none decided yet",
        ),
        stat_panel(
            "Learn batches",
            f"sum(rate(stream_ad_learn_steps_total{{{JOB}}}[$__rate_interval]))",
            unit="cps",
            decimals=2,
            span=8,
            says="Optimiser steps per second. 0 while events come: learning is off, or everything is kept out.",
        ),
        stat_panel(
            "Events waiting for a label",
            f"sum(stream_ad_pending_events{{{JOB}}})",
            unit="short",
            span=8,
            says="Scored, not yet learned. It settles at sensors times label horizon.",
            runbook="StreamADMemoryBoundBites",
        ),
    ]


def _labels() -> list[object]:
    return [
        lines(
            "Class importance",
            {"{{class}}": f"avg by (class) (stream_ad_class_importance{{{JOB}}})"},
            unit="percentunit",
            maximum=1,
            says="How badly the detector does on a class; it is the weight of the class in the loss. Near 1: nearly "
            "always missed.",
            runbook="StreamADRecallDecayed",
        ),
        lines(
            "Missed, by class",
            {"{{class}}": f"job_class:stream_ad_miss_ratio:avg{{{JOB}}}"},
            unit="percentunit",
            maximum=1,
            limit=0.5,
            says="Share of the labels of a class whose events had scored no higher than one normal event in a thousand "
            "does; older ones count less. Of normal: those that had scored higher.",
            runbook="StreamADRecallDecayed",
        ),
        heat(
            "How late labels come",
            "stream_ad_label_delay_seconds",
            unit="s",
            span=8,
            says="Event time to the record time of the label. Most labels must arrive within the label horizon.",
            runbook="StreamADLabelsMissTheirEvents",
        ),
        bars(
            "Labels of the last day, by outcome",
            "{{outcome}}",
            f"sum by (outcome) (increase(stream_ad_labels_total{{{JOB}}}[1d]))",
            unit="short",
            span=24,
            says="applied and interval teach; repeated, corrected, retracted are changes of mind; early waits for "
            "its event; late and "
            "unknown_sensor teach nothing.",
            runbook="StreamADLabelSilence",
        ),
    ]


def _sensors() -> list[object]:
    return [
        lines(
            "Sensors, by partition",
            {
                "partition {{shard}}": f"max by (shard) (stream_ad_sensors{{{JOB}}})",
                "limit per partition": f"max(stream_ad_max_sensors{{{JOB}}})",
            },
            unit="short",
            span=12,
            logarithmic=True,
            says="Sensors that have state. Beyond the limit the sensor silent for longest is forgotten.",
            runbook="StreamADSensorsNearBound",
        ),
        lines(
            "Late events",
            {"late": f"sum(rate(stream_ad_late_events_total{{{JOB}}}[$__rate_interval]))"},
            unit="cps",
            span=12,
            says="Events older than earlier events of their sensor. They are scored like all others; many of them "
            "mean that producers buffer.",
        ),
    ]
