"""Promises of docker-compose.yml and its overlays, read as Compose reads them: with the pins of .env."""

import re
from pathlib import Path

import pytest
import yaml

from stream_ad import __version__
from stream_ad.settings import WorkerSettings
from stream_ad.settings.loader import load_settings

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = sorted((ROOT / "deploy" / "compose").glob("*.yml"))
NOT_IN_BOTH_COMPOSES = {"name", "include", "gpus", "develop", "env_file", "pull_policy", "container_name", "version"}
LATER_KEYS = {"required", "start_interval", "content"}


def pins():
    lines = (ROOT / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def load(path):
    """Return the file with its variables filled in; a default in the file counts where .env sets none."""
    values = {"BOOTSTRAP_SERVERS": "broker:9092", **pins()}

    def fill(match):
        name, _, default = match[1].partition(":-")
        return values.get(name.partition(":?")[0], default)

    text = path.read_text()
    return yaml.safe_load(re.sub(r"(?<!\$)\$\{([^{}]+)\}", fill, text))


COMPOSE = load(ROOT / "docker-compose.yml")
SERVICES = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == pins()["WORKER_IMAGE"]]


def keys(node):
    if isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from keys(value)
    elif isinstance(node, list):
        for value in node:
            yield from keys(value)


def seconds(text):
    return float(text.removesuffix("s"))


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned(name):
    """Every image has a tag with a version, never latest, and the tag comes from .env."""
    image = SERVICES[name]["image"]
    assert image in pins().values()
    assert re.search(r":v?\d+(\.\d+)+", image)


def test_no_pin_stands_anywhere_else():
    """.env is the only file of the deployment that names a version of an image."""
    names = {value.partition(":")[0] for name, value in pins().items() if name.endswith("_IMAGE")}
    folder = ROOT / "deploy"
    files = [ROOT / "docker-compose.yml", folder / "Dockerfile", *OVERLAYS]
    for path in files:
        code = re.sub(r"^\s*#.*$", "", path.read_text(), flags=re.MULTILINE)
        assert not [name for name in names if re.search(rf"{re.escape(name)}:\S*\d", code)], path


def test_the_image_has_the_version_of_the_program():
    """The tag of stream-ad's image is the version of the program that it is built from."""
    assert pins()["WORKER_IMAGE"] == f"stream-ad:{__version__}"


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_runs_as_root(name):
    """Every service has a user that is not root, no capabilities, and no way to gain any."""
    service = SERVICES[name]
    assert int(service["user"].partition(":")[0]) > 0
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "kafka"])
def test_root_file_systems_are_read_only(name):
    """Everything but Kafka, which writes its configuration when it starts, has a read-only root."""
    assert SERVICES[name]["read_only"] is True


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_on_loopback_only(name):
    """No service publishes a port beyond this machine; a worker publishes none, so that it can be scaled."""
    ports = SERVICES[name].get("ports", [])
    assert all(port.startswith("127.0.0.1:") for port in ports)
    if name == "worker":
        assert not ports


@pytest.mark.parametrize("name", SERVICES)
def test_everything_is_limited(name):
    """Every service has a bound on memory and on processes, and its logs rotate."""
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["pids_limit"] > 0
    assert {"max-size", "max-file"} <= service["logging"]["options"].keys()


@pytest.mark.parametrize("name", [name for name in SERVICES if SERVICES[name]["restart"] != "no"])
def test_what_stays_up_is_watched_and_comes_back(name):
    """Every service that stays up has a health check (the worker's is in its image) and is started again."""
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    if name in OURS:
        assert "HEALTHCHECK" in (ROOT / "deploy" / "Dockerfile").read_text()
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


def test_kafkas_health_check_is_no_java():
    """A Java tool as health check would take the broker's heap a second time and get it killed."""
    assert SERVICES["kafka"]["healthcheck"]["test"][:2] == ["CMD", "nc"]


def test_a_worker_may_drain():
    """The worker is given longer to stop than it takes at most to write its last snapshots."""
    assert seconds(SERVICES["worker"]["stop_grace_period"]) > WorkerSettings().drain_timeout_seconds
    settings = load_settings(ROOT / "deploy" / "settings" / "stream-ad.yaml", (), {})
    assert seconds(SERVICES["worker"]["stop_grace_period"]) > settings.worker.drain_timeout_seconds


def test_workers_wait_for_their_topics():
    """Worker and simulator start once the topics have been applied by stream-ad itself, and Kafka creates none."""
    for name in ("worker", "simulator"):
        assert SERVICES[name]["depends_on"]["topics"] == {"condition": "service_completed_successfully"}
    assert SERVICES["topics"]["command"] == ["topics", "apply"]
    assert SERVICES["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_kafka_is_stopped_last():
    """Everything that writes to Kafka depends on it, so that it is stopped first and can write its last snapshots."""
    for name in ("topics", "worker", "simulator"):
        assert SERVICES[name]["depends_on"]["kafka"] == {"condition": "service_healthy"}


def test_the_settings_are_valid():
    """The settings file is accepted, names the broker as it advertises itself, and listens for Prometheus."""
    settings = load_settings(ROOT / "deploy" / "settings" / "stream-ad.yaml", (), {})
    assert settings.broker.kind == "kafka"
    assert (
        f"INSIDE://{settings.broker.bootstrap_servers}"
        in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    )
    assert settings.http.host == "0.0.0.0"


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_variables_of_overlays_are_settings(path):
    """Every STREAM_AD_* variable that a file sets is a setting of the program."""
    for service in load(path)["services"].values():
        environment = {k: v for k, v in service.get("environment", {}).items() if k.startswith("STREAM_AD_")}
        environment.pop("STREAM_AD_CONFIG", None)
        secret = {"STREAM_AD_BROKER__SECURITY__PASSWORD": "s"} if "SASL_SSL" in environment.values() else {}
        load_settings(None, (), environment | secret)


def test_kafka_keeps_its_data():
    """Kafka's data is on a volume, under a fixed cluster id of 22 characters that does not begin with a hyphen."""
    assert f"kafka-data:{SERVICES['kafka']['environment']['KAFKA_LOG_DIRS']}" in SERVICES["kafka"]["volumes"]
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{21}", pins()["KAFKA_CLUSTER_ID"])


def test_one_kafka_can_do_transactions():
    """On a single node every internal topic is satisfied with one replica."""
    environment = SERVICES["kafka"]["environment"]
    for topic in ("OFFSETS_TOPIC", "TRANSACTION_STATE_LOG", "SHARE_COORDINATOR_STATE_TOPIC"):
        assert environment[f"KAFKA_{topic}_REPLICATION_FACTOR"] == "1"
    for topic in ("TRANSACTION_STATE_LOG", "SHARE_COORDINATOR_STATE_TOPIC"):
        assert environment[f"KAFKA_{topic}_MIN_ISR"] == "1"


@pytest.mark.parametrize("path", [ROOT / "docker-compose.yml", *OVERLAYS], ids=lambda path: path.stem)
def test_both_composes_take_it(path):
    """Nothing is used that Compose 1.29 or 2 does not know: no new keys, no variables that one of them misreads."""
    content = load(path)
    assert not NOT_IN_BOTH_COMPOSES & content.keys()
    for service in content["services"].values():
        assert not NOT_IN_BOTH_COMPOSES & service.keys()
    assert not LATER_KEYS & set(keys(content))
    forms = re.findall(r"(?<!\$)\$\{([^}]*)\}", path.read_text())
    assert all(re.fullmatch(r"[A-Z_]+(:-[^${}]*|:\?[^${}]*)?", form) for form in forms)


def test_files_are_mounted_as_directories():
    """Configuration is mounted as folders: an editor that replaces a file would leave the old one mounted."""
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).is_dir()
                assert volume.endswith(":ro")


def test_no_password_is_in_a_file_of_the_tree():
    """Grafana's password is made on the first start and read from a file; anonymous viewers are off by default."""
    environment = SERVICES["grafana"]["environment"]
    assert not [name for name in environment if re.search("PASSWORD|SECRET", name) and not name.endswith("__FILE")]
    assert pins()["GRAFANA_ANONYMOUS_VIEWER"] == "false"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_a_gpu_is_asked_for_in_an_overlay_only():
    """Without the overlay no GPU is needed; with it, exactly the worker reserves one and must use it."""
    assert "devices" not in set(keys(COMPOSE))
    services = load(ROOT / "deploy" / "compose" / "gpu.yml")["services"]
    (device,) = services["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert list(services) == ["worker"]


def test_the_bundled_kafka_can_be_left_out():
    """With existing-kafka.yml no broker is started: a gate waits for yours, and all services talk to yours."""
    services = load(ROOT / "deploy" / "compose" / "existing-kafka.yml")["services"]
    assert services["kafka"]["image"] == pins()["WORKER_IMAGE"]
    assert services["kafka"]["healthcheck"]["test"] == ["CMD", "stream-ad", "topics", "plan"]
    for name in ("kafka", "topics", "worker", "simulator"):
        assert services[name]["environment"]["STREAM_AD_BROKER__BOOTSTRAP_SERVERS"] == "broker:9092"
