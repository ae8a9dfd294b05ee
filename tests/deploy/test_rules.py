"""Promises of the alert rules, with Prometheus' own promtool."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.tools import promtool

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
CASES = sorted((PROMETHEUS / "tests").glob("*.yml"))


def rules(kind):
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


ALERTS = rules("alert")
NAMES = sorted({alert["alert"] for alert in ALERTS})


def run(*arguments, cwd=PROMETHEUS):
    return subprocess.run([promtool(), *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)


def test_rules_are_well_formed():
    """Prometheus' own checker accepts every rule, and Prometheus' configuration with them."""
    checked = run("check", "rules", *RULES)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    checked = run("check", "config", PROMETHEUS / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_alerts_fire_and_stay_silent(path):
    """Every case holds: alerts fire when they should and stay silent right beside it."""
    tested = run("test", "rules", path, cwd=path.parent)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def asked():
    """Return, by alert name, what the cases expect: that it fires, that it stays silent, or both."""
    expectations = {name: set() for name in NAMES}
    for path in CASES:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for question in test["promql_expr_test"]:
                name = re.search(r'alertname="(\w+)"', question["expr"])[1]
                expectations[name].add(bool(question["exp_samples"]))
                if 'alertstate="firing"' not in question["expr"]:
                    assert not question["exp_samples"], "only a firing alert counts as fired"
    return expectations


def test_every_alert_has_cases():
    """Every alert has a case in which it fires and one in which it stays silent."""
    for name, expected in asked().items():
        assert expected == {True, False}, name


def test_cases_notice_a_broken_rule(tmp_path):
    """The cases notice a broken rule: with any threshold inverted, they fail."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "tests").mkdir()
    for path in RULES:
        text = path.read_text()
        (tmp_path / "rules" / path.name).write_text(text.replace("== 0", "== 77").replace(" > ", " < "))
    for path in CASES:
        (tmp_path / "tests" / path.name).write_text(path.read_text())
        assert run("test", "rules", tmp_path / "tests" / path.name).returncode != 0, path.name


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}")
def test_every_alert_says_what_to_do(alert):
    """Every alert has a severity, a summary, a description, and a runbook section that exists."""
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"]["summary"].endswith(".")
    assert alert["annotations"]["description"].endswith(".")
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert anchor == alert["alert"].lower()
    headings = re.findall(r"^## (\w+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert alert["alert"] in headings


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}")
def test_a_single_bad_moment_is_no_alert(alert):
    """Every alert waits, or looks at a stretch of time, before it fires."""
    assert alert.get("for") or re.search(r"\[\d+[mhd]\]", alert["expr"])


def test_there_are_enough_alerts():
    """All that the deployment promises to watch is watched."""
    assert len(NAMES) >= 14


def test_the_runbook_has_no_more_than_the_alerts():
    """Every section of the runbook belongs to an alert that exists."""
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "how-to" / "runbook.md").read_text(), re.MULTILINE)
    assert sorted(headings) == NAMES


@pytest.mark.parametrize("rule", rules("record"), ids=lambda rule: rule["record"])
def test_recorded_names_say_level_metric_operation(rule):
    """Recorded series are named level:metric:operation."""
    assert re.fullmatch(r"[a-z_]+:(stream_ad_)[a-z_]+:[a-z0-9_]+", rule["record"])


def test_alertmanager_knows_every_severity():
    """Critical alerts have a route of their own, and every receiver that a route names exists."""
    config = yaml.safe_load((ROOT / "deploy" / "alertmanager" / "alertmanager.yml").read_text())
    named = {receiver["name"] for receiver in config["receivers"]}
    assert {route["receiver"] for route in config["route"]["routes"]} | {config["route"]["receiver"]} <= named
    assert any("critical" in matcher for route in config["route"]["routes"] for matcher in route["matchers"])
