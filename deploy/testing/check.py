"""Bring the whole deployment up beside whatever runs, and prove what it promises: `make deploy-check`.

It has a project, ports and volumes of its own, and removes them at the end. Every step prints what it saw; the
first broken promise ends it, with the last lines of every container's log.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

from stack import COMPOSE, ENV, IMAGE, PORTS, PROJECT, Stack, docker, get_json, instant, panel_expressions

from stream_ad.brokers import open_reader
from stream_ad.settings.loader import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 420.0  # a loaded machine of two cores is slow, and that is no fault of the deployment
PARTITIONS = 6
SERVICES = ("kafka", "worker", "simulator", "prometheus", "alertmanager", "grafana")


class BrokenPromise(Exception):  # noqa: N818 -- it is one
    pass


def say(text: str) -> None:
    print(f"[{time.perf_counter() - STARTED:5.0f} s] {text}", flush=True)


def until(
    what: str, ask: Callable[[], object], patience_s: float = PATIENCE_S, *, show: Callable[[], str] = lambda: ""
) -> object:
    """Ask until the answer is true; ``show`` says what is missing when it never is."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            answer = ask()
        except OSError as error:  # not listening yet
            answer, why = None, f" ({error})"
        else:
            why = f" (last: {answer!r})"
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise BrokenPromise(f"{what}: not within {patience_s:.0f} s{show() or why}")
        time.sleep(2.0)


def check_image() -> None:
    size = int(docker("image", "inspect", "--format", "{{.Size}}", IMAGE)) / 1e6
    user = docker("image", "inspect", "--format", "{{.Config.User}}", IMAGE)
    tools = docker(
        "run",
        "--rm",
        "--entrypoint",
        "sh",
        IMAGE,
        "-c",
        "for t in pip gcc cc ld make git curl; do command -v $t; done; true",
    )
    version = docker("run", "--rm", "--read-only", "--network", "none", IMAGE, "--version")
    if user != "10001:10001" or tools:
        raise BrokenPromise(f"the image runs as {user!r} and has {tools.split()}")
    say(f"image {IMAGE}: {size:,.0f} MB, user {user}, no build tools, runs read-only as '{version}'")


def come_up(stack: Stack, *, workers: int = 1) -> None:
    stack.up(workers)
    until("every container healthy", lambda: stack.unwell(SERVICES) == [] or None)
    say(f"up and healthy: {', '.join(SERVICES)}" + (f", workers: {workers}" if workers > 1 else ""))


def check_scores() -> None:
    reader = open_reader(settings())
    try:
        records = until("scores in anomaly-scores", lambda: reader.read("anomaly-scores", timeout_s=5.0))
    finally:
        reader.close()
    say(f"scores arrive: {len(records):,} in the first read of anomaly-scores")


def check_panels() -> None:
    panels = panel_expressions()
    answered: set[str] = set()

    def unanswered() -> list[str]:
        for where, expr in panels.items():
            if where not in answered and instant(expr):
                answered.add(where)
        return sorted(panels.keys() - answered)

    until("every panel answered", lambda: not unanswered(), 900.0, show=lambda: f"not yet: {unanswered()}")
    say(f"Prometheus answers every expression of every panel with data: {len(panels)} of {len(panels)}")


def check_grafana() -> None:
    health = get_json("grafana", "/api/health")
    stand_in = health.get("version") == "stand-in"
    say(
        f"Grafana's health: {health}"
        + (" -- a stand-in: that Grafana draws the dashboards is not proved here" * stand_in)
    )


def alerts(name: str) -> list[object]:
    return [a for a in get_json("alertmanager", "/api/v2/alerts") if a["labels"]["alertname"] == name]


def check_alert(stack: Stack) -> None:
    stack.kill("worker")
    until("StreamADDown in Alertmanager", lambda: alerts("StreamADDown"))
    say("worker killed: StreamADDown fires in Alertmanager")
    stack.start("worker")
    until("StreamADDown resolved", lambda: not alerts("StreamADDown"), 900.0)
    until("worker healthy", lambda: stack.unwell(("worker",)) == [] or None)
    say("worker back: StreamADDown is resolved")


def check_scale(stack: Stack) -> None:
    come_up(stack, workers=2)

    def split() -> dict[str, int] | None:
        owned = {
            sample["metric"]["instance"]: int(sample["value"][1])
            for sample in instant('stream_ad_shards{state="live"} > 0')
        }
        return owned if len(owned) == 2 and sum(owned.values()) == PARTITIONS else None

    owned = until("two workers share the partitions", split)
    say(f"--scale worker=2 splits the partitions: {owned}")


def fresh(metric: str) -> str:
    """Sum of what was scraped just now: for five minutes a new Prometheus would answer for the old workers, too."""
    return f"sum({metric} and timestamp({metric}) > time() - 15)"


def check_continuation(stack: Stack) -> None:
    sensors, warming = fresh("stream_ad_sensors"), fresh("stream_ad_warming_sensors")
    until("no sensor in warm-up", lambda: instant(f"{warming} == 0"))
    warm_sensors = instant(sensors)[0]["value"][1]
    stack.down()
    say(f"down; {warm_sensors} sensors were warm")
    come_up(stack)
    restored = fresh('stream_ad_restores_total{source="snapshot"}')
    until("all partitions from snapshots", lambda: instant(f"{restored} == {PARTITIONS}"))
    until("the same sensors, warm", lambda: instant(f"{sensors} == {warm_sensors} and {warming} == 0"))
    say(
        f"down and up: all {PARTITIONS} partitions resume from their snapshots, {warm_sensors} sensors, "
        "none in warm-up again"
    )


def check_exactly_once(stack: Stack) -> None:
    """After a kill, a scaling, a stop and a start: every event has one score."""
    stack.stop("simulator")
    reader = open_reader(settings())
    seen: dict[str, list[str]] = {"sensor-events": [], "anomaly-scores": []}

    def complete() -> bool:
        for topic, event_ids in seen.items():
            while records := reader.read_records(topic, timeout_s=2.0):
                event_ids += [json_id(record.value) for record in records]
        return len(seen["anomaly-scores"]) >= len(seen["sensor-events"])

    until("as many scores as events", complete)
    reader.close()
    events, scores = seen["sensor-events"], seen["anomaly-scores"]
    if sorted(events) != sorted(scores):
        raise BrokenPromise(
            f"{len(events)} events, {len(scores)} scores, {len(set(events) - set(scores))} missing, "
            f"{len(scores) - len(set(scores))} doubled"
        )
    say(
        f"every event has exactly one score: {len(events):,} events, {len(scores):,} scores, none missing, none doubled"
    )


def check_secure() -> None:
    """TLS and SASL by the overlay: it works with the password, and not without."""
    subprocess.run(["deploy/compose/make-secrets.sh"], check=True, capture_output=True)
    stack = Stack("docker-compose.yml", "deploy/compose/secure.yml")
    try:
        stack.up(1)
        until("worker healthy over TLS and SASL", lambda: stack.unwell(("kafka", "worker", "simulator")) == [] or None)
        password = Path("deploy/secrets/kafka_password").read_text(encoding="ascii")
        secure = ["protocol=SASL_SSL", "mechanism=PLAIN", "username=stream-ad", "ca_file=deploy/secrets/ca.pem"]
        overrides = [f"broker.security.{setting}" for setting in secure]
        reader = open_reader(settings(*overrides, f"broker.security.password={password}"))
        records = until("scores over TLS and SASL", lambda: reader.read("anomaly-scores", timeout_s=5.0))
        reader.close()
        for wrong in ((), (*overrides, "broker.security.password=wrong")):
            try:
                open_reader(settings(*wrong, "broker.give_up_seconds=5")).read("anomaly-scores")
            except Exception as error:  # noqa: BLE001 -- any refusal will do
                say(f"refused {'with a wrong password' if wrong else 'without TLS'}: {str(error)[:90]}")
            else:
                raise BrokenPromise("Kafka answers a client that has no password")
        say(f"secure.yml: scores arrive over TLS with a password: {len(records):,}")
    finally:
        stack.down("--volumes")


def settings(*overrides: str):  # noqa: ANN201 -- the program's
    host = f"127.0.0.1:{PORTS['kafka']}"
    return load_settings(None, ["broker.kind=kafka", f"broker.bootstrap_servers={host}", *overrides], {})


def json_id(value: bytes | None) -> str:
    return json.loads(value or b"{}")["event_id"]


def main() -> int:
    stack = Stack("docker-compose.yml")
    say(f"project {PROJECT}, {' '.join(COMPOSE)}, ports {PORTS}")
    try:
        stack.down("--volumes")  # what an earlier run left
        check_image()
        come_up(stack)
        check_scores()
        check_panels()
        check_grafana()
        check_alert(stack)
        check_scale(stack)
        check_continuation(stack)
        check_exactly_once(stack)
        stack.down("--volumes")
        check_secure()
    except (BrokenPromise, ValueError, subprocess.CalledProcessError) as error:
        print(f"\nBROKEN: {error}\n{getattr(error, 'stderr', '') or ''}\n{stack.logs()}", file=sys.stderr)
        return 1
    finally:
        stack.down("--volumes")
        say("down, volumes removed")
    say("all promises hold")
    return 0


STARTED = time.perf_counter()

if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[2])
    os.environ.update(ENV)
    sys.exit(main())
