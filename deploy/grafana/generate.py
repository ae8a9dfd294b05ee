"""Write deploy/grafana/dashboards/*.json and the rules for Kubernetes; a test compares the files with this code.

python deploy/grafana/generate.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder

sys.path.insert(0, str(Path(__file__).parent))

from boards import board
from detector import detector
from overview import overview
from panels import runbook_sections, words
from pipeline import pipeline

DEPLOY = Path(__file__).resolve().parents[1]
DASHBOARDS = DEPLOY / "grafana" / "dashboards"
RULES = DEPLOY / "prometheus" / "rules"
OPERATOR = DEPLOY / "kubernetes" / "monitoring" / "prometheus-rule.yaml"


def runbook() -> object:
    """Return the runbook dashboard: a panel for each section of docs/how-to/runbook.md, for other panels to link to."""
    sections = runbook_sections()
    panels = [words(name, body, span=12, height=12) for name, (_, body) in sections.items()]
    says = "What to do about each alert: docs/how-to/runbook.md."
    return board("Runbook", uid="stream-ad-runbook", says=says, rows={"": panels})


def files() -> dict[Path, str]:
    """Return the text of every generated file by its path."""
    rules = [group for path in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(path.read_text())["groups"]]
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "stream-ad"},
        "spec": {"groups": rules},
    }
    operator = f"# Made from deploy/prometheus/rules by `make dashboards`.\n{yaml.safe_dump(resource, sort_keys=False)}"
    boards = {"overview": overview(), "detector": detector(), "pipeline": pipeline(), "runbook": runbook()}
    return {OPERATOR: operator} | {
        DASHBOARDS / f"{name}.json": json.dumps(_without_placement(dashboard.build()), indent=2, ensure_ascii=False)
        + "\n"
        for name, dashboard in boards.items()
    }


def _without_placement(built: object) -> object:
    """Show links and annotations: the builder hides each of them in a menu and has no option against it."""

    def visible(node: dict[str, object]) -> dict[str, object]:
        return {key: value for key, value in node.items() if (key, value) != ("placement", "inControlsMenu")}

    return json.loads(json.dumps(built, cls=JSONEncoder), object_hook=visible)


if __name__ == "__main__":
    for path, content in files().items():
        path.write_text(content, encoding="utf-8")
