"""Kinds of panels. Each has a unit, a description and, where an alert watches it, a link to its runbook section."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grafana_foundation_sdk.builders import bargauge, common, heatmap, prometheus, stat, text, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models
from grafana_foundation_sdk.models import text as text_models

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = ROOT / "docs" / "how-to" / "runbook.md"
SOURCE = common_models.DataSourceRef(type_val="prometheus", uid="stream-ad-prometheus")
JOB = 'job="$job"'
WIDTH = 24  # of Grafana's grid

# Colours by meaning; no two states differ by red against green alone.
GOOD, NOTICE, BAD, PLAIN = "green", "orange", "red", "blue"

Panel = Any  # the builders share no public base


def runbook_sections() -> dict[str, tuple[int, str]]:
    """Return, by alert name, the number of its panel on the runbook dashboard and the text of its section."""
    parts = re.split(r"^## (\w+)\n", RUNBOOK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    names, texts = parts[1::2], parts[2::2]
    return {name: (number, body.strip()) for number, (name, body) in enumerate(zip(names, texts, strict=True), 1)}


def stat_panel(  # noqa: PLR0913 -- a panel has so many sides
    title: str,
    expr: str,
    *,
    unit: str,
    says: str,
    span: int = 4,
    steps: Sequence[tuple[float | None, str]] = ((None, PLAIN),),
    runbook: str = "",
    decimals: int | None = None,
    no_value: str = "no data",
) -> Panel:
    """Return a panel with one large number, coloured by the highest of ``steps`` that it reaches."""
    panel = (
        stat.Panel()
        .height(4)
        .span(span)
        .unit(unit)
        .no_value(no_value)
        .thresholds(_steps(steps))
        .color_mode(common_models.BigValueColorMode.VALUE)
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_query(expr, title))
    )
    if decimals is not None:
        panel = panel.decimals(decimals)
    return _described(panel, title, says, runbook)


def lines(  # noqa: PLR0913 -- a panel has so many sides
    title: str,
    queries: Mapping[str, str],
    *,
    unit: str,
    says: str,
    span: int = 8,
    runbook: str = "",
    stacked: bool = False,
    maximum: float | None = None,
    limit: float | None = None,
    logarithmic: bool = False,
) -> Panel:
    """Return curves over time. ``queries``: expression by legend; ``limit``: a dashed line not to be crossed."""
    panel = (
        timeseries.Panel()
        .height(8)
        .span(span)
        .unit(unit)
        .line_width(1)
        .fill_opacity(25 if stacked else 8)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
    )
    panel = panel.axis_soft_min(0) if not logarithmic else panel.scale_distribution(
        common.ScaleDistributionConfig().type(common_models.ScaleDistribution.LOG).log(10)
    )  # fmt: skip
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if maximum is not None:
        panel = panel.min(0).max(maximum)
    if limit is not None:
        panel = panel.thresholds(_steps(((None, "transparent"), (limit, BAD)))).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
        )
    for letter, (legend, expr) in zip("ABCDEFGH", queries.items(), strict=False):
        panel = panel.with_target(_query(expr, legend).ref_id(letter))
    return _described(panel, title, says, runbook)


def bars(  # noqa: PLR0913 -- a panel has so many sides
    title: str,
    legend: str,
    expr: str,
    *,
    unit: str,
    says: str,
    span: int = 8,
    runbook: str = "",
    steps: Sequence[tuple[float | None, str]] = ((None, PLAIN),),
    maximum: float | None = None,
) -> Panel:
    """Return one bar for the present value of each series."""
    panel = (
        bargauge.Panel()
        .height(8)
        .span(span)
        .unit(unit)
        .min(0)
        .thresholds(_steps(steps))
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_query(expr, legend).instant())
    )
    if maximum is not None:
        panel = panel.max(maximum)
    return _described(panel, title, says, runbook)


def heat(title: str, metric: str, *, unit: str, says: str, span: int = 12, runbook: str = "") -> Panel:
    """Return a heat map of a histogram over time."""
    expr = f"sum by (le) (increase({metric}_bucket{{{JOB}}}[$__rate_interval]))"
    panel = (
        heatmap.Panel()
        .height(8)
        .span(span)
        .unit("short")
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Blues")
            .scale(heatmap_models.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .tooltip(heatmap.HeatmapTooltip().mode(common_models.TooltipDisplayMode.SINGLE).y_histogram(True))
        .show_legend()
        .with_target(_query(expr, "{{le}}").format(prometheus_models.PromQueryFormat.HEATMAP))
    )
    return _described(panel, title, says, runbook)


def words(title: str, content: str, *, span: int = WIDTH, height: int = 8) -> Panel:
    """Return a panel of Markdown."""
    return text.Panel().title(title).height(height).span(span).mode(text_models.TextMode.MARKDOWN).content(content)


def _query(expr: str, legend: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(SOURCE).expr(expr).legend_format(legend)


def _steps(steps: Sequence[tuple[float | None, str]]) -> build.ThresholdsConfig:
    thresholds = [model.Threshold(value=value, color=color) for value, color in steps]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(thresholds)


def _described(panel: Panel, title: str, says: str, runbook: str) -> Panel:
    panel = panel.title(title).datasource(SOURCE)
    if runbook:
        number, _ = runbook_sections()[runbook]
        link = (
            build.DashboardLink(f"Runbook: {runbook}")
            .type(model.DashboardLinkType.LINK)
            .url(f"/d/stream-ad-runbook?viewPanel=panel-{number}")
        )
        panel = panel.links([link])
        says = f"{says}\n\nAlert {runbook}: docs/how-to/runbook.md#{runbook.lower()}"
    return panel.description(says)
