"""Promises of the manifests for Kubernetes, without a cluster."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from stream_ad import __version__
from stream_ad.settings import WorkerSettings
from stream_ad.settings.loader import load_settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
BASE = yaml.safe_load((FOLDER / "base" / "kustomization.yaml").read_text())
RESOURCES = {name: yaml.safe_load((FOLDER / "base" / name).read_text()) for name in BASE["resources"]}
SUPPORTED = ("1.31", "1.34", "1.37")


def labelled(resource):
    """Return the resource with the labels and selectors that kustomize adds."""
    labels = BASE["labels"][0]["pairs"]
    spec = resource.get("spec", {})
    if resource["kind"] == "Deployment":
        spec["selector"] = {"matchLabels": labels}
        spec["template"]["metadata"] = {"labels": labels}
    return resource


POD = RESOURCES["deployment.yaml"]["spec"]["template"]["spec"]
CONTAINERS = POD["containers"] + POD["initContainers"]
WORKER = POD["containers"][0]


@pytest.mark.parametrize("version", SUPPORTED)
@pytest.mark.parametrize("name", RESOURCES)
def test_manifests_fit_the_schemas(name, version):
    """Every manifest is accepted by the schemas of supported versions of Kubernetes, without an unknown field."""
    kubernetes_validate.validate(labelled(RESOURCES[name]), version, strict=True)


def test_everything_that_is_listed_is_there():
    """Kustomizations name files that exist, and every manifest beside them is named."""
    for folder in ("base", "monitoring"):
        kustomization = yaml.safe_load((FOLDER / folder / "kustomization.yaml").read_text())
        named = {(FOLDER / folder / name).resolve() for name in kustomization["resources"]}
        assert all(path.exists() for path in named)
        assert set((FOLDER / folder).glob("*.yaml")) - {FOLDER / folder / "kustomization.yaml"} <= named


def test_the_image_has_the_version_of_the_program():
    """The tag of the image is the version of the program, never latest."""
    assert BASE["images"] == [{"name": "stream-ad", "newTag": __version__}]
    assert {container["image"] for container in CONTAINERS} == {"stream-ad"}


def test_the_settings_are_valid():
    """The settings are accepted, and listen where the probes and Prometheus ask."""
    (file,) = BASE["configMapGenerator"][0]["files"]
    settings = load_settings(FOLDER / "base" / file, (), {})
    assert settings.broker.kind == "kafka"
    assert settings.http.host == "0.0.0.0"
    assert settings.http.port == WORKER["ports"][0]["containerPort"]
    assert settings.topics.partitions >= RESOURCES["deployment.yaml"]["spec"]["replicas"]


def test_a_worker_may_drain():
    """A pod is given longer to stop than a worker takes at most to write its last snapshots."""
    assert POD["terminationGracePeriodSeconds"] > WorkerSettings().drain_timeout_seconds


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda container: container["name"])
def test_containers_are_locked_down(container):
    """Pods run without root and capabilities, on a read-only root, with bounded memory."""
    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["securityContext"]["runAsUser"] == 10001
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert not POD["automountServiceAccountToken"]


def test_probes_tell_alive_from_ready():
    """A worker that replays is alive and not ready: only a stuck loop restarts it."""
    assert WORKER["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert WORKER["startupProbe"]["httpGet"]["path"] == "/livez"
    assert WORKER["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_one_worker_at_a_time_is_taken_away():
    """Neither a drain of nodes nor an upgrade takes more than one worker at a time, and there are at least two."""
    assert RESOURCES["disruption-budget.yaml"]["spec"]["maxUnavailable"] == 1
    deployment = RESOURCES["deployment.yaml"]["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert deployment["replicas"] >= 2


def test_monitoring_is_an_option():
    """The base needs no custom resources; with them, rules and dashboards find the job under the name they expect."""
    assert not [name for name, resource in RESOURCES.items() if "coreos" in resource["apiVersion"]]
    monitor = yaml.safe_load((FOLDER / "monitoring" / "service-monitor.yaml").read_text())
    assert monitor["spec"]["endpoints"][0]["port"] == RESOURCES["service.yaml"]["spec"]["ports"][0]["name"]
    assert BASE["labels"][0]["pairs"][monitor["spec"]["jobLabel"]] == "stream-ad"
