"""The pipeline dashboard: lag, throughput, delay, commits, dead letters, memory, rebalances, recovery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boards import board, watching
from panels import JOB, heat, lines

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard


def pipeline() -> Dashboard:
    return watching(
        board(
            "Pipeline",
            uid="stream-ad-pipeline",
            says="How records flow: throughput, backlog, delay, commits, rejected records, memory, ownership, "
            "recovery.",
            rows={
                "Flow": _flow(),
                "Work and commits": _work(),
                "Memory and bounds": _memory(),
                "Ownership and recovery": _recovery(),
            },
        )
    )


def _rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{JOB}}}[$__rate_interval]))"


def _flow() -> list[object]:
    return [
        lines(
            "Records read",
            {"{{side}} {{outcome}}": _rate("stream_ad_records_total", "side, outcome")},
            unit="cps",
            says="Input records, once their step is committed.",
            runbook="StreamADNoEvents",
        ),
        lines(
            "Records published",
            {"{{output}}": _rate("stream_ad_published_records_total", "output")},
            unit="cps",
            says="Scores, incidents, dead letters. With scores.publish=all there is one score for each accepted event.",
        ),
        lines(
            "Dead letters",
            {"{{side}}: {{reason}}": _rate("stream_ad_dead_letters_total", "side, reason")},
            unit="cps",
            says="Records that could not be read, by reason. They are kept in the dead-letter topic.",
            runbook="StreamADDeadLetters",
        ),
        lines(
            "Records waiting, by partition",
            {"{{side}} {{shard}}": f"max by (side, shard) (stream_ad_lag_records{{{JOB}}})"},
            unit="short",
            span=12,
            says="One partition far above the others: a few sensors send most of the events, or its worker is stuck.",
            runbook="StreamADShardStuck",
        ),
        heat(
            "From event to score",
            "stream_ad_event_delay_seconds",
            unit="s",
            says="Record time of an event to the commit of its score.",
            runbook="StreamADDelayed",
        ),
    ]


def _work() -> list[object]:
    stage = _rate("stream_ad_stage_seconds_total", "stage")
    return [
        lines(
            "Busy",
            {"{{instance}}": f"instance:stream_ad_busy:ratio5m{{{JOB}}}"},
            unit="percentunit",
            maximum=1,
            limit=0.9,
            says="Share of its time that a worker is not waiting for records. Near 1 it can take no more: add workers.",
            runbook="StreamADLagGrows",
        ),
        lines(
            "Where the time goes",
            {"{{stage}}": stage},
            unit="s",
            stacked=True,
            says="Seconds per second, over all workers. step is scoring and learning, load and snapshot are recovery.",
        ),
        lines(
            "CPU",
            {"{{instance}}": f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])"},
            unit="short",
            says="Cores in use. One worker uses hardly more than one.",
        ),
        lines(
            "Commits",
            {"{{result}}": _rate("stream_ad_commits_total", "result")},
            unit="cps",
            says="error: refused by Kafka, the step is repeated. fenced: another worker has taken over the "
            "partition, which is normal.",
            runbook="StreamADCommitsFail",
        ),
        heat(
            "Duration of a commit",
            "stream_ad_commit_duration_seconds",
            unit="s",
            span=16,
            says="Outputs, offsets and sometimes a snapshot in one transaction. Slow commits make scores late; the "
            "disk of Kafka is the usual cause.",
            runbook="StreamADDelayed",
        ),
    ]


def _memory() -> list[object]:
    return [
        lines(
            "Memory of the workers",
            {"{{instance}}": f"process_resident_memory_bytes{{{JOB}}}"},
            unit="bytes",
            says="Resident. It grows with sensors and settles; if it does not, a bound is set too high for the "
            "machine.",
            runbook="StreamADMemoryBoundBites",
        ),
        lines(
            "State, by partition",
            {"partition {{shard}}": f"max by (shard) (stream_ad_state_bytes{{{JOB}}})"},
            unit="bytes",
            says="Models, statistics, waiting events. It is also about the size of a snapshot.",
        ),
        lines(
            "Bounds that took effect",
            {"{{bound}}": f"sum by (bound) (increase(stream_ad_bound_hits_total{{{JOB}}}[$__rate_interval]))"},
            unit="short",
            says="inbox: one input waits for the other, normal in a catch-up. Everything else but http_connections "
            "and log_lines left something "
            "out to keep memory bounded.",
            runbook="StreamADMemoryBoundBites",
        ),
    ]


def _recovery() -> list[object]:
    return [
        lines(
            "Partitions, by worker",
            {"{{instance}} {{state}}": f"sum by (instance, state) (stream_ad_shards{{{JOB}}})"},
            unit="short",
            stacked=True,
            says="live: scored. recovering: replaying after a start or a takeover. waiting: its state could not be "
            "loaded or written.",
            runbook="StreamADNotReady",
        ),
        lines(
            "Rebalances and restores",
            {
                "rebalances": f"sum(increase(stream_ad_rebalances_total{{{JOB}}}[$__rate_interval]))",
                "restores from {{source}}": (
                    f"sum by (source) (increase(stream_ad_restores_total{{{JOB}}}[$__rate_interval]))"
                ),
            },
            unit="short",
            says="Partitions that changed hands. A few after each start or scaling; a steady stream stops the flow.",
            runbook="StreamADRebalancesOften",
        ),
        lines(
            "Time to recover",
            {
                "{{instance}}": f"stream_ad_recovery_duration_seconds_sum{{{JOB}}}"
                f" / (stream_ad_recovery_duration_seconds_count{{{JOB}}} > 0)"
            },
            unit="s",
            says="Mean since the worker started: from loading a partition until it is live. Shorter snapshot "
            "intervals make it shorter.",
            runbook="StreamADRestartLoop",
        ),
        lines(
            "Age of snapshots",
            {
                "partition {{shard}}": f"max by (shard) (stream_ad_snapshot_age_seconds{{{JOB}}})",
                "interval": f"max(stream_ad_snapshot_interval_seconds{{{JOB}}})",
            },
            unit="s",
            says="Since the oldest commit that no snapshot covers; so much would have to be replayed. Retention must "
            "be longer.",
            runbook="StreamADSnapshotTooOld",
        ),
        lines(
            "Size of snapshots",
            {"partition {{shard}}": f"max by (shard) (stream_ad_snapshot_size_bytes{{{JOB}}})"},
            unit="bytes",
            says="The newest of each partition; 0 before the first one of this worker.",
        ),
        lines(
            "Replayed records",
            {"{{side}}": _rate("stream_ad_replayed_records_total", "side")},
            unit="cps",
            says="Read again to recover, without publishing anything.",
        ),
        lines(
            "Lost records",
            {"{{side}}": f"sum by (side) (stream_ad_lost_records_total{{{JOB}}})"},
            unit="short",
            says="Deleted before they were read, since the workers started; broker.on_lost_records=continue lets "
            "workers continue without them.",
            runbook="StreamADRecordsLost",
        ),
        lines(
            "Models not resumed",
            {
                "{{source}}": (
                    f'sum by (source) (stream_ad_restores_total{{{JOB}, source=~"older_snapshot|beginning|new_model"}})'
                )
            },
            unit="short",
            says="Since the workers started: partitions that did not resume from their newest snapshot, because it "
            "was damaged or does not fit the settings.",
            runbook="StreamADModelLost",
        ),
    ]
