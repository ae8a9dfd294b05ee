"""``snapshots``: list, show, restore, reset and delete the snapshots of a shard."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from stream_ad.cli.help import PlainCommand, PlainGroup, example
from stream_ad.cli.options import AsJson, ConfigFile, Overrides, print_json, print_table, read_settings, thousands
from stream_ad.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stream_ad.diagnostics.snapshot_inspect import SnapshotView

snapshots = typer.Typer(
    cls=PlainGroup,
    suggest_commands=False,
    rich_markup_mode=None,
    help="Inspect the saved models, go back to an older one.",
    no_args_is_help=True,
)

_COLUMNS = (
    *("SHARD", "NUMBER", "SAVED", "EVENTS", "LABELS", "SENSORS"),
    *("MISSED NORMAL", "MISSED CLASS", "SIZE", ""),
)

Shard = Annotated[int, typer.Argument(metavar="SHARD", min=0, help="Number of the partition.")]
Number = Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="Number of the snapshot, as `list` shows it.")]
At = Annotated[
    str,
    typer.Option(
        "--at",
        metavar="committed|oldest|newest",
        help="Where to resume: after the last published result; at the oldest records kept, which publishes scores "
        "again; after the newest record, which skips unread records.",
    ),
]


@snapshots.command(name="list", cls=PlainCommand, epilog=example("snapshots list 0"))
def list_(
    shard: Annotated[int | None, typer.Argument(metavar="[SHARD]", min=0, help="Only this shard.")] = None,
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the snapshots of each shard, the newest first."""
    settings = read_settings(config_file, overrides)
    from stream_ad.brokers import open_snapshots
    from stream_ad.diagnostics.snapshot_inspect import views
    from stream_ad.diagnostics.snapshot_restore import require_shard

    if shard is not None:
        require_shard(settings, shard)
    with closing(open_snapshots(settings)) as kept:
        chosen = range(settings.topics.partitions) if shard is None else [shard]
        listed = [view for number in chosen for view in views(kept, number, settings.detector_options)]
    if as_json:
        print_json([view.as_json() for view in listed])
    elif not listed:
        typer.echo(f"There are no snapshots of {settings.application_id}.")
    else:
        print_table(_COLUMNS, [_row(view) for view in listed])


def _row(view: SnapshotView) -> tuple[str, ...]:
    content = () if not view.program else (str(view.sensors), _share(view.missed_normal), _missed(view))
    return (
        str(view.shard),
        str(view.number),
        (view.saved or "?").replace("T", " ").removesuffix("Z"),
        thousands(view.events),
        thousands(view.labels),
        *(content or ("-", "-", "-")),
        _size(view.size_bytes),
        "; ".join(filter(None, ("next start" if view.in_use else "", view.lineage_reason, view.problem))),
    )


def _missed(view: SnapshotView) -> str:
    """Return the class that the detector misses most, and how many others it misses."""
    classes = {
        name: statistics.missed
        for name, statistics in view.classes.items()
        if name != "normal" and statistics.missed is not None
    }
    worst = sorted(classes, key=lambda name: (-(classes[name] or 0), name))
    shown = ", ".join(f"{name} {_share(classes[name])}" for name in worst[:1])
    return f"{shown}, +{len(worst) - 1}" if worst[1:] else shown or "-"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


@snapshots.command(cls=PlainCommand, epilog=example("snapshots show 0 12"))
def show(
    shard: Shard,
    number: Number,
    config_file: ConfigFile = None,
    overrides: Overrides = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show everything that one snapshot knows."""
    settings = read_settings(config_file, overrides)
    from stream_ad.brokers import open_snapshots
    from stream_ad.diagnostics.snapshot_inspect import one_view
    from stream_ad.diagnostics.snapshot_restore import require_shard

    require_shard(settings, shard)
    with closing(open_snapshots(settings)) as kept:
        view = one_view(kept, shard, number, settings.detector_options)
    if as_json:
        print_json(view.as_json())
    else:
        _describe(view)
    if view.problem:
        raise StateError(
            f"Snapshot {number} of shard {shard} cannot be used: {view.problem}.",
            hint="`stream-ad snapshots list` shows the others.",
        )


def _describe(view: SnapshotView) -> None:
    rows = {
        "shard": str(view.shard),
        "number": f"{view.number}{' (the next start resumes from it)' if view.in_use else ''}",
        "saved": view.saved or "unknown",
        "origin": view.lineage_reason or "continues the previous snapshot",
        "positions": f"events {thousands(view.events)}, labels {thousands(view.labels)}",
        "size": _size(view.size_bytes),
    }
    if not view.problem:
        rows |= {
            "seen": f"{thousands(view.records)} records, up to {view.watermark or 'no event time yet'}",
            "sensors": f"{view.sensors}, with {', '.join(map(str, sorted(set(view.features)))) or 'no'} features",
            "open incidents": str(view.open_incidents),
            "program": view.program,
        }
    for name, text in rows.items():
        typer.echo(f"{name:<15} {text}")
    if view.classes:
        typer.echo()
        print_table(
            ("CLASS", "LABELS", "MISSED", "WEIGHT"),
            [
                (name, f"{statistics.labels:.1f}", _share(statistics.missed), f"{statistics.weight:.2f}")
                for name, statistics in view.classes.items()
            ],
        )
        typer.echo(
            "Missed: labels 'normal' of events above the threshold of learning, other labels of events below it.\n"
            "Counts and shares decay with further labels."
        )


@snapshots.command(cls=PlainCommand, epilog=example("snapshots restore 0 12 --at oldest"))
def restore(
    shard: Shard, number: Number, config_file: ConfigFile = None, overrides: Overrides = None, *, at: At = "committed"
) -> None:
    """Resume a shard from an older model.

    Published results stay as they are, and all snapshots are kept. No worker may own the shard.
    """
    _begin(config_file, overrides, shard, at, number)


@snapshots.command(cls=PlainCommand, epilog=example("snapshots reset 0"))
def reset(shard: Shard, config_file: ConfigFile = None, overrides: Overrides = None, *, at: At = "committed") -> None:
    """Resume a shard with a new, untrained model.

    Published results stay as they are, and all snapshots are kept. No worker may own the shard.
    """
    _begin(config_file, overrides, shard, at, None)


def _begin(config_file: Path | None, overrides: Sequence[str] | None, shard: int, at: str, number: int | None) -> None:
    settings = read_settings(config_file, overrides)
    from stream_ad.brokers import open_snapshots
    from stream_ad.diagnostics import snapshot_restore as tools

    if at not in list(tools.ResumeAt):
        raise typer.BadParameter(f"'{at}' is none of {', '.join(tools.ResumeAt)}.", param_hint="--at")
    tools.require_shard(settings, shard)
    with closing(open_snapshots(settings)) as kept:
        if number is None:
            new = tools.reset(kept, settings, shard, tools.ResumeAt(at))
        else:
            new = tools.restore(kept, settings, shard, number, tools.ResumeAt(at))
    model = "a new model" if number is None else f"the model of snapshot {number}"
    typer.echo(
        f"Shard {shard} resumes with {model} at events {new.positions.events}, labels {new.positions.labels} "
        f"(snapshot {new.number})."
    )


@snapshots.command(cls=PlainCommand, epilog=example("snapshots delete 0 11"))
def delete(shard: Shard, number: Number, config_file: ConfigFile = None, overrides: Overrides = None) -> None:
    """Delete a snapshot permanently.

    The newest cannot be deleted: the next start needs it.
    """
    settings = read_settings(config_file, overrides)
    from stream_ad.brokers import open_snapshots
    from stream_ad.diagnostics.snapshot_restore import require_shard

    require_shard(settings, shard)
    with closing(open_snapshots(settings)) as kept:
        kept.delete(shard, number)
    typer.echo(f"Snapshot {number} of shard {shard} is deleted.")
