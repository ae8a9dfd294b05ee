"""Connections to a Kafka with encryption and passwords, and the errors where it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from contextlib import closing
from pathlib import Path

import pytest

from stream_ad.brokers import open_admin, open_broker, open_producer, open_reader
from stream_ad.brokers.worker_api import Commit, InputOffsets, InputTopic
from stream_ad.errors import BrokerError
from stream_ad.records.columns import OutRecord
from stream_ad.settings import Settings
from tests.support.broker_fixtures import await_commits, drain, over_both_clients, own
from tests.support.secure_kafka import PASSWORDS, SecureKafka

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("events", "labels", "scores", "incidents", "dead_letters", "state")


@pytest.fixture(scope="module")
def secure(kafka):
    with SecureKafka() as server:
        yield server


@pytest.fixture
def settings(secure):
    """Return a function that makes settings for one of the listeners."""
    name = uuid.uuid4().hex[:8]

    def make(listener="SECURE", user="ann", mechanism="SCRAM-SHA-512", client="kafka-python", **changes):
        protocol = {"SECURE": "SASL_SSL", "LOGIN": "SASL_PLAINTEXT", "TLS": "SSL"}[listener]
        security = {"protocol": protocol}
        if listener != "TLS":
            security |= {"mechanism": mechanism, "username": user, "password": PASSWORDS[user]}
        if listener != "LOGIN":
            security |= {"ca_file": str(secure.ca_file)}
        broker = {"kind": "kafka", "client": client, "bootstrap_servers": secure.address(listener)}
        broker["give_up_seconds"] = 5.0
        return Settings(
            application_id=name,
            broker={**broker, "security": security | changes},
            topics={"partitions": 1, **{role: f"{role}-{name}" for role in ROLES}},
        )

    return make


@over_both_clients
@pytest.mark.parametrize(
    ("listener", "mechanism"),
    [("SECURE", "SCRAM-SHA-512"), ("SECURE", "PLAIN"), ("LOGIN", "SCRAM-SHA-512"), ("LOGIN", "PLAIN"), ("TLS", None)],
)
def test_everything_works_over_every_way_in(settings, listener, mechanism, client):
    """Over TLS, with passwords, and with both: topics are created, records written, read, committed and read back."""
    chosen = settings(listener, mechanism=mechanism, client=client)
    with closing(open_admin(chosen)) as admin:
        admin.apply()
        assert not any(topic.problem for topic in admin.plan())
    with closing(open_producer(chosen)) as producer:
        producer.send(InputTopic.EVENTS, [OutRecord(b"a", b"1", 1)])
        producer.flush()
    await_commits(chosen)
    with closing(open_broker(chosen)) as broker:
        own(broker, 1)
        broker.seek(0, broker.load(0).positions)
        assert [value for fetched in drain(broker)[0, InputTopic.EVENTS] for value in fetched.records.values] == [b"1"]
        broker.commit(Commit(0, InputOffsets(1, 0), scores=[OutRecord(b"a", b"score", 1)], snapshot=b"state"))
        assert broker.load(0).snapshot is not None
    with closing(open_reader(chosen)) as reader:
        assert reader.read(chosen.topics.scores) == [(b"a", b"score")]


@pytest.mark.parametrize(
    ("changes", "says", "hint"),
    [
        ({"password": "wrong-s3cret"}, "refused the login of 'ann'", "password"),
        ({"username": "nobody"}, "refused the login of 'nobody'", "username"),
        ({"mechanism": "PLAIN", "password": "wrong-s3cret"}, "refused the login of 'ann'", "password"),
        ({"mechanism": "SCRAM-SHA-256"}, "No Kafka broker answered|refused the login", "mechanism"),
        ({"ca_file": None}, "CERTIFICATE_VERIFY_FAILED", "broker.security.ca_file"),
        ({"ca_file": "other"}, "CERTIFICATE_VERIFY_FAILED", "broker.security.ca_file"),
        ({"protocol": "SASL_PLAINTEXT", "ca_file": None}, "No Kafka broker answered", "broker.security"),
    ],
    ids=["password", "user", "plain password", "mechanism", "no authority", "other authority", "no TLS"],
)
def test_a_refusal_is_told(secure, settings, changes, says, hint):
    """A wrong password, an unknown user, an untrusted certificate: the error says which, and which setting to check."""
    if changes.get("ca_file") == "other":
        changes = {"ca_file": str(secure.other_ca_file)}
    with pytest.raises(BrokerError, match=says) as refused:
        open_broker(settings(**changes))
    assert hint in refused.value.hint
    assert refused.value.exit_code == 4
    assert "s3cret" not in str(refused.value)


def test_missing_rights_are_told(settings):
    """A user without rights is named, with the rights that are needed."""
    with closing(open_admin(settings())) as admin:
        admin.apply()
    with pytest.raises(BrokerError, match="does not allow 'eve'") as refused:
        open_broker(settings(user="eve"))
    assert "transactional ids" in refused.value.hint


def run(settings, *arguments, program=("-m", "stream_ad"), **environment):
    """Run a command with its settings in a file and the password in another."""
    tree = settings.model_dump(mode="json")
    tree["broker"]["security"].pop("password")
    folder = Path(environment.pop("folder"))
    (folder / "stream-ad.yaml").write_text(json.dumps(tree))
    plain = {name: value for name, value in os.environ.items() if not name.startswith("STREAM_AD_")}
    return subprocess.run(
        [sys.executable, *program, *arguments, "--config", "stream-ad.yaml"],
        cwd=folder, env={**plain, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def secret_in(folder, word):
    """The ways to pass a password."""
    path = folder / "word"
    path.write_text(word + "\n")
    secrets = folder / "secrets"
    secrets.mkdir()
    (secrets / "stream_ad_broker__security__password").write_text(word)
    return [
        {"STREAM_AD_BROKER__SECURITY__PASSWORD": word},
        {"STREAM_AD_BROKER__SECURITY__PASSWORD_FILE": str(path)},
        {"STREAM_AD_SECRETS_DIR": str(secrets)},
    ]


def test_the_password_comes_from_the_environment_or_a_file(settings, tmp_path):
    """Each of the three ways lets the doctor connect, and the output does not contain the password."""
    chosen = settings()
    for environment in secret_in(tmp_path, PASSWORDS["ann"]):
        result = run(chosen, "topics", "apply", folder=tmp_path, **environment)
        assert result.returncode == 0, result.stderr
        assert PASSWORDS["ann"] not in result.stdout + result.stderr
    result = run(chosen, "doctor", folder=tmp_path, **environment)
    assert result.returncode == 0, result.stdout
    assert "by SASL_SSL" in result.stdout
    assert "'ann' may read and write the topics" in result.stdout


HARD_WORD = 'wrong "s3cret\\ wörd'


@pytest.mark.parametrize(
    ("level", "form"), [("debug", "json"), ("debug", "console"), ("info", "json"), ("error", "console")]
)
def test_no_output_of_a_refused_run_holds_the_secret(settings, tmp_path, level, form):
    """At any log level, in either format, no line of output contains the refused password."""
    more = ("--set", f"logs.level={level}", "--set", f"logs.format={form}", "--set", "http.port=0")
    refused = run(settings(), "run", *more, folder=tmp_path, STREAM_AD_BROKER__SECURITY__PASSWORD=HARD_WORD)
    assert refused.returncode == 4
    assert "s3cret" not in refused.stdout + refused.stderr


def test_no_command_shows_the_secret(settings, tmp_path):
    """No command that shows settings, or reports an error in them, shows the password."""
    commands = {("config", "show"): 0, ("config", "show", "--json"): 0, ("doctor",): 8, ("topics", "plan"): 4}
    for command, code in commands.items():
        result = run(settings(), *command, folder=tmp_path, STREAM_AD_BROKER__SECURITY__PASSWORD=HARD_WORD)
        assert result.returncode == code, result.stderr
        assert "s3cret" not in result.stdout + result.stderr


BROKEN = """
import logging
import stream_ad.worker.worker as w

def fail(self, until_idle_s):
    password = self._context.settings.broker.security.password.get_secret_value()
    logging.getLogger("somebody").debug("hello %s", password)
    raise RuntimeError(f"broken with {password} in {self._context.settings!r}")

w._Loop.run = fail
from stream_ad.cli.app import main
main()
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_does_not_hold_the_secret(settings, tmp_path, form):
    """A worker that fails with the password in its message and in its log shows neither."""
    chosen = settings()
    with closing(open_admin(chosen)) as admin:
        admin.apply()
    more = ("--set", "logs.level=debug", "--set", f"logs.format={form}", "--set", "http.port=0")
    word = {"STREAM_AD_BROKER__SECURITY__PASSWORD": PASSWORDS["ann"]}
    broken = run(chosen, "run", *more, folder=tmp_path, program=("-c", BROKEN), **word)
    assert broken.returncode == 1
    assert "broken with **********" in broken.stderr
    assert "hello **********" in broken.stderr
    assert "Traceback" in broken.stderr
    assert PASSWORDS["ann"] not in broken.stdout + broken.stderr


def test_the_doctor_says_what_a_user_may_not(settings, tmp_path):
    """A user without rights is a problem with its remediation, and exit code 8."""
    with closing(open_admin(settings())) as admin:
        admin.apply()
    result = run(
        settings(user="eve"), "doctor", "--json", folder=tmp_path,
        STREAM_AD_BROKER__SECURITY__PASSWORD=PASSWORDS["eve"],
    )  # fmt: skip
    assert result.returncode == 8
    wrong = [finding for finding in json.loads(result.stdout)["findings"] if finding["level"] == "problem"]
    assert any(finding["check"] == "rights" and "eve" in finding["what"] and finding["mend"] for finding in wrong)
