"""A Compose project and its services, as deploy/testing/check.py asks about them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[2]
DOCKER = os.environ.get("DOCKER", "docker")
COMPOSE = shlex.split(os.environ.get("COMPOSE", "docker compose"))
PROJECT = "stream-ad-check"
PORTS = {"kafka": 29092, "prometheus": 29090, "alertmanager": 29093, "grafana": 23000}
ENV = {"COMPOSE_PROJECT_NAME": PROJECT, **{f"{name.upper()}_PORT": str(port) for name, port in PORTS.items()}}
PINS = dict(
    line.split("=", 1) for line in (ROOT / ".env").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"
)
IMAGE = PINS["WORKER_IMAGE"]


def docker(*arguments: str) -> str:
    return _run(DOCKER, *arguments)


class Stack:
    """The services of some compose files, in a project of its own."""

    def __init__(self, *files: str) -> None:
        self._compose = [*COMPOSE, *(part for file in files for part in ("-f", file)), "--profile", "demo"]

    def up(self, workers: int) -> None:
        _run(*self._compose, "up", "-d", "--no-build", "--no-recreate", "--scale", f"worker={workers}")

    def down(self, *options: str) -> None:
        _run(*self._compose, "down", "--remove-orphans", *options)

    def stop(self, service: str) -> None:
        _run(*self._compose, "stop", service)

    def kill(self, service: str) -> None:
        docker("kill", *self._containers(service))

    def start(self, service: str) -> None:
        docker("start", *self._containers(service))

    def unwell(self, services: tuple[str, ...]) -> list[str]:
        """Services without a container that runs and, if it has a health check, is healthy."""
        state = "{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}healthy{{end}}"
        containers = {service: self._containers(service) for service in services}
        return [
            service
            for service, ids in containers.items()
            if not ids
            or any(line != "running healthy" for line in docker("inspect", "-f", state, *ids).splitlines())
        ]  # fmt: skip

    def logs(self) -> str:
        return _run(*self._compose, "logs", "--no-color", "--tail", "20")

    def _containers(self, service: str) -> list[str]:
        label = "label=com.docker.compose"
        return docker(
            "ps", "-aq", "--filter", f"{label}.project={PROJECT}", "--filter", f"{label}.service={service}"
        ).split()


def get_json(service: str, path: str) -> Any:
    with urlopen(f"http://127.0.0.1:{PORTS[service]}{path}", timeout=30) as answer:
        return json.load(answer)


def instant(expr: str) -> list[Any]:
    """What Prometheus answers now; samples that are not numbers are left out.

    Raises:
        ValueError: Prometheus does not understand the expression.
    """
    try:
        answer = get_json("prometheus", f"/api/v1/query?{urlencode({'query': expr})}")
    except HTTPError as error:
        if error.code in {400, 422}:
            raise ValueError(f"{expr}: {error.read().decode()}") from error
        raise
    return [sample for sample in answer["data"]["result"] if sample["value"][1] != "NaN"]


def panel_expressions(job: str = "stream-ad") -> dict[str, str]:
    """Expression of every query of every panel, by dashboard, panel and letter, with the variables filled in."""
    expressions = {}
    for path in sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                where = f"{path.stem}: {panel['title']} {target.get('refId', '')}".strip()
                expressions[where] = target["expr"].replace("$job", job).replace("$__rate_interval", "1m")
    return expressions


def _run(*command: str) -> str:
    return subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **ENV}
    ).stdout.strip()
