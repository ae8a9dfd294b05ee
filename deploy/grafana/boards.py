"""What all dashboards share: time range, choice of deployment, annotations, links to each other."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as model
from panels import JOB, SOURCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TAG = "stream-ad"

_RESTORES = f'sum by (instance) (stream_ad_restores_total{{{JOB}, source="snapshot"}}'

# Annotations: colour, expression, text, whether the value is the time. A worker restores its shards before its first
# scrape, so a counter that is first seen above 0 has risen.
MARKS = {
    "Worker started": ("blue", f"process_start_time_seconds{{{JOB}}} * 1000", "{{instance}} started", True),
    "State restored": (
        "purple",
        f"{_RESTORES}) > ({_RESTORES} offset 1m) or {_RESTORES}) * 0)",
        "{{instance}} took over models from their snapshots",
        False,
    ),
}


def board(title: str, *, uid: str, says: str, rows: Mapping[str, Sequence[Any]]) -> build.Dashboard:
    """Return a dashboard from panels by title of their row; the row "" has no title."""
    result = (
        build.Dashboard(f"stream-ad / {title}")
        .uid(uid)
        .description(says)
        .tags([TAG])
        .readonly()
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            build.DashboardLink("stream-ad")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
    )
    ids = count(1)  # the same in each build, so that links to panels stay valid
    for heading, panels in rows.items():
        if heading:
            result = result.with_row(build.Row(heading).id(next(ids)))
        for panel in panels:
            result = result.with_panel(panel.id(next(ids)))
    return result


def watching(dashboard: build.Dashboard) -> build.Dashboard:
    """Add a choice of deployment and annotations of its life to a dashboard."""
    dashboard = dashboard.with_variable(
        build.QueryVariable("job")
        .label("Deployment")
        .query("label_values(stream_ad_build_info, job)")
        .datasource(SOURCE)
        .current(model.VariableOption(text="stream-ad", value="stream-ad"))
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )
    for name, (color, expr, description, at_value) in MARKS.items():
        dashboard = dashboard.annotation(
            build.AnnotationQuery()
            .name(name)
            .datasource(SOURCE)
            .enable(True)
            .icon_color(color)
            .expr(expr)
            .title_format(name)
            .text_format(description)
            .step("1m")
            .use_value_for_time(at_value)
        )
    return dashboard
