"""Render a backtest as one self-contained HTML page that loads nothing."""

from __future__ import annotations

import html
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from stream_ad.evaluation.report.report_data import report_data

if TYPE_CHECKING:
    from stream_ad.evaluation.backtest.runner import Backtest

SCRIPTS = ("base.js", "time.js", "curves.js", "lists.js")
_MARK = re.compile("%(TITLE|STYLE|SCRIPT|DATA)%")


def report_html(run: Backtest, result: dict[str, Any]) -> str:
    """Return the page of a backtest.

    Args:
        run: The backtest.
        result: The figures that ``results`` returned.
    """
    page = files("stream_ad.evaluation.report") / "page"
    parts = {
        "TITLE": html.escape(", ".join(result["files"])),
        "STYLE": (page / "report.css").read_text(encoding="utf-8"),
        "SCRIPT": "\n".join((page / name).read_text(encoding="utf-8") for name in SCRIPTS),
        "DATA": _embedded(report_data(run, result)),
    }
    # A single pass, so that text in the data is never taken for a mark.
    return _MARK.sub(lambda mark: parts[mark[1]], (page / "report.html").read_text(encoding="utf-8"))


def _embedded(value: Any) -> str:
    """Return JSON that cannot end the script element around it, whatever names the stream has."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
