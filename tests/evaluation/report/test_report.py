"""The page of a backtest: complete in itself, safe with any name, and true to the figures."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from stream_ad.evaluation.backtest.budgets import RATES
from stream_ad.evaluation.backtest.label_schedule import Delay, Protocol
from stream_ad.evaluation.backtest.results import results
from stream_ad.evaluation.backtest.runner import run_backtest
from stream_ad.evaluation.backtest.stream import Stream
from stream_ad.evaluation.report import report_data as module
from stream_ad.evaluation.report.report import report_html
from stream_ad.evaluation.report.report_data import report_data
from stream_ad.settings import Settings
from tests.support.browser import opened
from tests.support.recordings import OPTIONS, drawn, recording

HOSTILE = '</script><img src="http://example.org/x" onerror=alert(1)>%DATA%'
SETTINGS = Settings().model_dump(mode="json", include={"detector", "learning", "alarms"})


class Page(HTMLParser):
    """Every attribute of the page, and the text of its scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.attributes, self.parts, self._open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        self._open.append((tag, dict(attrs).get("id", "")))

    def handle_data(self, data):
        if self._open and self._open[-1][0] in ("script", "style"):
            self.parts[self._open[-1]] = self.parts.get(self._open[-1], "") + data


@pytest.fixture(scope="module")
def run():
    """A backtest over sensors with faults, one of them with a name that means harm."""
    made = drawn()
    named = dataclasses.replace(made, sensor_ids=[HOSTILE if name == "s1" else name for name in made.sensor_ids])
    stream = Stream([named], warmup=None, default_warmup=64)
    return run_backtest(stream, OPTIONS, Protocol(delay=Delay(20)), against=["zscore"], budgets=RATES)


@pytest.fixture(scope="module")
def result(run):
    return results(run, settings=SETTINGS)


@pytest.fixture(scope="module")
def html(run, result):
    return report_html(run, result)


def test_the_page_asks_nobody_for_anything(html):
    """No element loads anything, no style or script names an address, and the page forbids itself all requests."""
    page = Page(html)
    assert not [
        attribute for attribute in page.attributes if attribute[1] in ("src", "href", "srcset", "action", "data")
    ]
    code = "".join(text for (tag, part), text in page.parts.items() if part != "data")
    assert set(re.findall(r"https?://[^\"'\s]+", code)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "url(" not in code.replace("url(#inside)", "")
    assert not re.search(r"@import|fetch\(|XMLHttpRequest|import\(", code)
    assert "default-src 'none'" in html


def test_the_figures_are_in_it(html, run, result):
    """The data in the page is what the figures say, and a name cannot break out of it."""
    page = Page(html)
    data = json.loads(page.parts["script", "data"])
    assert data["figures"] == result
    assert HOSTILE in data["figures"]["sensors"]
    assert {sensor["id"] for sensor in data["shown"]} == set(run.stream.sensors)
    assert [tag for tag, _ in page.parts].count("script") == 2


def test_a_browser_opens_it_without_complaint(html, result, tmp_path):
    """In a real browser, the page draws every chart and table and complains about nothing."""
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    document, complaints = opened(path)
    assert complaints == ""
    for place in ("time", "budgets", "pr", "roc", "progress", "compare", "sensors", "advice", "settings", "worst"):
        assert not re.search(rf'id="{place}"[^>]*></', document), place
    assert f"{result['roc_auc']:.3f}" in document
    assert "<img" not in re.sub(r"<script.*?</script>", "", document, flags=re.DOTALL)


def test_no_line_is_drawn_across_a_long_gap(tmp_path):
    """Where a sensor was silent for long, the line of its scores is interrupted."""
    times = np.arange(200) * 60
    times[150:] += 30 * 86_400
    rng = np.random.default_rng(0)
    recorded = recording(["normal"] * 199 + ["leak"], times_s=times, values=rng.normal(size=(200, 2)))
    backtest = run_backtest(Stream([recorded], warmup=None, default_warmup=64), OPTIONS, Protocol(delay=Delay(20)))
    result = results(backtest, settings=SETTINGS)
    (series,) = report_data(backtest, result)["shown"]
    assert series["gap"] == module.LONG_GAP * 60_000
    path = tmp_path / "report.html"
    path.write_text(report_html(backtest, result), encoding="utf-8")
    document, complaints = opened(path)
    assert complaints == ""
    (line,) = re.findall(r'<path d="([^"]+)" fill="none" stroke="var\(--main\)" stroke-width="1.1"', document)
    assert line.count("M") == 2


def test_scores_are_thinned_but_peaks_stay(run, result, monkeypatch):
    """A long stream keeps, of each bucket of rows, the highest score at its own time."""
    monkeypatch.setattr(module, "POINTS", 40)
    monkeypatch.setattr(module, "LEAST_SENSOR_POINTS", 20)
    series = next(series for series in report_data(run, result)["shown"] if series["id"] == "s0")
    rows = np.flatnonzero(run.stream.sensor == 0)
    assert len(series["score"]) <= 20
    assert len({len(series[key]) for key in ("score", "alarm", "t", "row", "labelled", "unlabelled")}) == 1
    assert max(series["score"]) == pytest.approx(run.detector.score[rows].max(), rel=1e-3)
    assert max(series["alarm"]) == pytest.approx(run.detector.alarms[rows, 0].max(), rel=1e-3)
    peak = int(rows[run.detector.score[rows].argmax()])
    at = series["score"].index(max(series["score"]))
    assert series["row"][at] == run.stream.row_in[peak]
    assert series["t0"] + sum(series["t"][: at + 1]) == run.stream.times_ns[peak] // 10**6


def test_labels_are_those_that_came(run, result):
    """Marked as labelled are the rows whose label had arrived by the end."""
    series = next(series for series in report_data(run, result)["shown"] if series["id"] == "s0")
    rows = np.flatnonzero(run.stream.sensor == 0)
    expected = ["0"] * len(rows)
    for index in np.flatnonzero(np.isin(rows, run.schedule.rows)).tolist():
        expected[index] = "2" if run.stream.anomalous[rows[index]] else "1"
    assert series["labelled"] == "".join(expected)
    assert expected[-20:] == ["0"] * 20


def test_incidents_are_drawn_as_they_were_published(run, result):
    """Each sensor shows every incident that was published of it, from its first alarm to its last."""
    for series in report_data(run, result)["shown"]:
        published = {each.incident_id: each for each in run.detector.incidents if each.sensor_id == series["id"]}
        drawn_spans = sorted((each["from"], each["to"], each["kind"], each["reason"]) for each in series["incidents"])
        expected = [
            (round(each.start.timestamp() * 1000), round(each.end.timestamp() * 1000), each.kind, each.reason)
            for each in published.values()
        ]
        assert expected
        assert drawn_spans == sorted(expected)


def test_false_incidents_can_be_looked_up(run, result):
    """Every false incident is listed once, with the id of the row at which it opened, and covers no fault."""
    listed = report_data(run, result)["false_incidents"]
    configured = result["incidents"]["budgets"][-1]
    assert listed["total"] == configured["false"] == len(listed["listed"])
    for entry in listed["listed"]:
        assert entry["alarm"] >= 1
        assert run.detector.alarms[row_of(entry), 0] >= 1
        assert run.stream.sensors[run.stream.sensor[row_of(entry)]] == entry["sensor"]


def test_a_false_incident_is_listed_with_its_rows(run, result):
    """An incident over normal rows alone is listed with its length and highest alarm; one over a fault is not."""
    stream = run.stream
    rows = np.flatnonzero(stream.sensor == 0)
    normal = ~stream.anomalous[rows] & stream.evaluated[rows]
    (begin,) = np.flatnonzero(np.convolve(normal, np.ones(3), "valid") == 3)[:1]
    alarms = np.zeros_like(run.detector.alarms)
    alarms[rows[begin : begin + 3], 0] = 1.5, 0.5, 2.5
    alarms[np.flatnonzero(stream.anomalous & stream.evaluated)[-1], 0] = 4
    other = dataclasses.replace(run, detector=dataclasses.replace(run.detector, alarms=alarms))
    (entry,) = report_data(other, results(other, settings=SETTINGS))["false_incidents"]["listed"]
    assert (row_of(entry), entry["rows"], entry["alarm"]) == (rows[begin], 3, 2.5)


def row_of(entry):
    """The row of a listed event; its id counts from 1."""
    return int(entry["event"].rpartition("-")[2]) - 1


def test_missed_faults_are_listed(run, result):
    """Found and listed faults are all faults there are, and nothing alarmed during those listed."""
    missed = report_data(run, result)["missed"]
    assert missed["total"] == result["segments"]["total"] - result["segments"]["detected"] > 0
    assert all(entry["alarm"] < 1 for entry in missed["listed"])


def test_the_last_point_of_progress_is_the_result(run, result):
    """Quality as labels arrive ends at the figures of the whole."""
    progress = report_data(run, result)["progress"]
    expected = [result["roc_auc"], result["average_precision"]]
    assert progress["detector"][-1] == pytest.approx(expected, abs=1e-4)
    assert progress["labels"] == sorted(progress["labels"])
    assert progress["labels"][-1] == result["labels"]["given"]


def test_an_empty_backtest_has_a_page(run):
    """Interrupted before the first row, there still is a page that says so."""
    run = dataclasses.replace(run, done=0)
    assert report_html(run, results(run, settings=SETTINGS))
