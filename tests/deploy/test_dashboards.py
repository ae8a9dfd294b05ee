"""Promises of the dashboards: fresh, complete, and answered by a real Prometheus that scrapes a real worker."""

import importlib.util
import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from stream_ad.brokers.worker_api import InputTopic
from stream_ad.evaluation.simulation.annotator import AnnotatorConfig
from stream_ad.evaluation.simulation.plant import PlantConfig
from stream_ad.evaluation.simulation.simulate import Simulation
from stream_ad.settings import Settings
from stream_ad.testing import MemoryBroker
from stream_ad.worker.worker import Worker
from tests.support.tools import prometheus_tool

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BOARDS = {
    path.stem: json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
}
PANELS = [(name, panel) for name, board in BOARDS.items() for panel in board["panels"]]
GRAPHS = [(name, panel) for name, panel in PANELS if panel["type"] not in {"row", "text"}]
RULES = [
    rule
    for path in sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
PATIENCE_S = 120.0


def script(path):
    """Return a script of the deployment as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def title(value):
    return f"{value[0]}-{value[1]['title']}"


def test_dashboards_are_fresh():
    """The committed dashboards are those that deploy/grafana makes; `make dashboards` writes them again."""
    made = script(DEPLOY / "grafana" / "generate.py").files()
    assert {path.name: path.read_text() for path in made} == {path.name: text for path, text in made.items()}


def test_the_builder_of_dashboards_is_pinned():
    """grafana-foundation-sdk is pinned to a plain version: releases numbered by epoch sort above it."""
    text = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'"grafana-foundation-sdk==0\.0\.\d+"', text)


def test_what_is_asked_for_is_there():
    """There are dashboards for the overview, the detector, the pipeline and the runbook, each with its own id."""
    assert {board["uid"] for board in BOARDS.values()} == {
        "stream-ad-overview", "stream-ad-detector", "stream-ad-pipeline", "stream-ad-runbook",
    }  # fmt: skip
    for board in BOARDS.values():
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize("panel", GRAPHS, ids=map(title, GRAPHS))
def test_every_panel_explains_itself(panel):
    """Every panel has a title, a unit, and a description that says what it shows."""
    _, content = panel
    assert content["title"]
    assert content["fieldConfig"]["defaults"]["unit"]
    assert len(content["description"]) > 30


def test_links_to_the_runbook_arrive():
    """Every link from a panel to the runbook leads to the section of the alert that it names."""
    sections = {panel["id"]: panel["title"] for panel in BOARDS["runbook"]["panels"]}
    links = [link for _, panel in GRAPHS for link in panel.get("links", ())]
    assert links
    for link in links:
        number = re.fullmatch(r"/d/stream-ad-runbook\?viewPanel=panel-(\d+)", link["url"])
        assert link["title"] == f"Runbook: {sections[int(number[1])]}"


def test_every_alert_has_a_panel():
    """What an alert watches can be seen: some panel links to every alert, except two that only counting shows."""
    linked = {link["title"].removeprefix("Runbook: ") for _, panel in GRAPHS for link in panel.get("links", ())}
    assert {rule["alert"] for rule in RULES if "alert" in rule} - linked <= {
        "StreamADWorkerDown",
        "StreamADLabelBacklog",
    }


def test_panels_do_not_overlap():
    """No two panels of a dashboard overlap, and none reaches beyond the 24 columns."""
    for board in BOARDS.values():
        taken = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken
            assert at["x"] + at["w"] <= 24
            taken |= cells


def test_the_data_source_is_the_provisioned_one():
    """Every query goes to the provisioned data source, under its fixed uid."""
    provisioned = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text())
    uid = provisioned["datasources"][0]["uid"]
    for _, panel in GRAPHS:
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": uid}


def test_starts_and_restores_are_marked():
    """The dashboards mark starts of workers and restored models."""
    for name in ("overview", "detector", "pipeline"):
        names = {mark["name"] for mark in BOARDS[name]["annotations"]["list"]}
        assert {"Worker started", "State restored"} <= names


# ── answered by a real Prometheus that scrapes a real worker ──────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def worker():
    """Run a worker over a broker in memory that a plant keeps feeding: readings, faults and labels."""
    memory = MemoryBroker()
    settings = Settings.model_validate({"topics": {"partitions": 2}, "http": {"port": 0}})
    stop = threading.Event()
    running = Worker(settings, memory.worker(settings), stop=stop)
    plant = PlantConfig(machines=4, healthy_s=3600.0, fault_every_s=1800.0, start_ns=time.time_ns() - 86_400 * 10**9)
    simulation = Simulation(plant, AnnotatorConfig(delay_s=300.0), name="sim")
    producer = memory.producer(settings)

    def feed():
        while not stop.wait(0.1):
            tick = simulation.step(40)
            producer.send(InputTopic.EVENTS, tick.event_records())
            producer.send(InputTopic.LABELS, tick.label_records())

    threads = [threading.Thread(target=running.run), threading.Thread(target=feed)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: running.http_port)
        yield running
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def until(ask):
    """Return the first true answer."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := ask()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return answer


@pytest.fixture(scope="module")
def prometheus(worker, tmp_path_factory):
    """Return the address of a Prometheus with the rules of the deployment that scrapes the worker twice a second."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(DEPLOY / "prometheus" / "rules" / "*.yml")],
        "scrape_configs": [
            {"job_name": "stream-ad", "static_configs": [{"targets": [f"127.0.0.1:{worker.http_port}"]}]},
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [prometheus_tool("prometheus"), "--config.file=prometheus.yml", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, "--web.listen-address=127.0.0.1:0"], cwd=folder, stderr=log)
    try:
        listening = re.compile(
            r'Listening on".*address=(127\.0\.0\.1:\d+)'
        )  # it chooses the port, and only this line says which
        address = f"http://{until(lambda: listening.search((folder / 'log').read_text()))[1]}"
        until(lambda: is_ready(address))
        yield address
    finally:
        process.terminate()
        process.wait()


def is_ready(prometheus):
    """Return whether Prometheus answers queries: it listens earlier than that."""
    try:
        with urllib.request.urlopen(f"{prometheus}/-/ready"):
            return True
    except urllib.error.HTTPError:
        return False


def ask(prometheus, expr):
    """Return the samples of an answer that are numbers; fail when Prometheus refuses the expression."""
    body = urllib.parse.urlencode({"query": expr}).encode()
    try:
        with urllib.request.urlopen(f"{prometheus}/api/v1/query", data=body) as answer:
            return [sample for sample in json.load(answer)["data"]["result"] if sample["value"][1] != "NaN"]
    except urllib.error.HTTPError as error:
        pytest.fail(f"{expr}\n{error.read().decode()}")


def filled(expr):
    return expr.replace("$job", "stream-ad").replace("$__rate_interval", "1m")


def test_every_panel_is_answered(prometheus):
    """Prometheus answers every expression of every panel with data, within the first minutes of a worker's life."""
    left = {f"{name}: {panel['title']}: {target['expr']}": target["expr"]
            for name, panel in GRAPHS for target in panel["targets"]}  # fmt: skip
    deadline = time.monotonic() + PATIENCE_S
    while left and time.monotonic() < deadline:
        left = {where: expr for where, expr in left.items() if not ask(prometheus, filled(expr))}
        time.sleep(0.5)
    assert sorted(left) == []


def test_marks_are_understood(prometheus):
    """Prometheus understands the expression of every mark, and knows the deployments to choose from."""
    for board in BOARDS.values():
        for mark in board.get("annotations", {}).get("list", ()):
            ask(prometheus, filled(mark["expr"]))
    assert until(lambda: ask(prometheus, "stream_ad_build_info"))[0]["metric"]["job"] == "stream-ad"


def test_rules_are_evaluated(prometheus):
    """A real Prometheus evaluates every rule without an error."""
    with urllib.request.urlopen(f"{prometheus}/api/v1/rules") as answer:
        groups = json.load(answer)["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(RULES)
    assert [rule["name"] for rule in rules if rule.get("lastError")] == []


def test_every_named_metric_is_exported(worker):
    """Every metric that a panel, a mark or a rule names is exported by a real worker, or recorded by a rule."""
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    expressions = [target["expr"] for _, panel in GRAPHS for target in panel["targets"]]
    expressions += [rule["expr"] for rule in RULES]
    expressions += [mark["expr"] for board in BOARDS.values() for mark in board.get("annotations", {}).get("list", ())]
    pattern = r"\b(?:[a-z_]+:)?(?:stream_ad|process)_[a-z0-9_:]+"
    named = {name for expr in expressions for name in re.findall(pattern, expr)} - recorded
    assert len(named) > 30

    def missing():
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.http_port}/metrics") as answer:
            exported = re.findall(r"^([a-z_]+)(?:\{| )", answer.read().decode(), re.MULTILINE)
        return named - set(exported)

    deadline = time.monotonic() + PATIENCE_S
    while missing() and time.monotonic() < deadline:  # classes are known once labels have met their events
        time.sleep(0.5)
    assert missing() == set()
