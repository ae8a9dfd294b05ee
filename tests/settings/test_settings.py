"""Promises of the settings: which source wins, what is refused, what an error says."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from stream_ad.detector.config import DetectorOptions
from stream_ad.errors import SettingsError
from stream_ad.settings import Settings
from stream_ad.settings.keys import MASK, all_keys, leaf_values
from stream_ad.settings.loader import load_settings, resolve
from stream_ad.settings.render import as_yaml

PASSWORD = "STREAM_AD_BROKER__SECURITY__PASSWORD"


@pytest.fixture
def config(tmp_path):
    """Return a function that writes a settings file and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "stream-ad.yaml"
        path.write_text(text)
        return path

    return write


def refusal(config=None, overrides=(), environ=None) -> str:
    """Return the text of the error that the sources give."""
    with pytest.raises(SettingsError) as caught:
        load_settings(config, overrides, environ or {})
    return str(caught.value)


def test_nothing_set_is_all_defaults():
    """Without any source the settings are the defaults, and none has an origin."""
    resolved = resolve(None, (), {})
    assert resolved.settings == Settings()
    assert resolved.origins == {}


def test_order_of_sources(config, tmp_path):
    """--set beats the environment, which beats the file, which beats secret files, which beat defaults."""
    file = config("http: {port: 3, host: from-file}")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in ("port", "host", "enabled"):
        (secrets / f"stream_ad_http__{name}").write_text("false\n" if name == "enabled" else "4\n")
    environ = {"STREAM_AD_SECRETS_DIR": str(secrets)}
    assert load_settings(None, (), environ).http.port == 4
    assert load_settings(file, (), environ).http.port == 3
    environ["STREAM_AD_HTTP__PORT"] = "2"
    assert load_settings(file, (), environ).http.port == 2
    settings = load_settings(file, ["http.port=9", "http.port=1"], environ)
    assert (settings.http.port, settings.http.host, settings.http.enabled) == (1, "from-file", False)


def test_every_setting_can_be_given_by_each_source(config):
    """Every key of the tree, at its default, is read back from --set, from the environment and from YAML."""
    texts = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in leaf_values(Settings())
        if not key.is_secret
    }
    overrides = [f"{key.name}={text}" for key, text in texts.items()]
    assert load_settings(None, overrides, {}) == Settings()
    environ = {key.variable: text for key, text in texts.items()}
    resolved = resolve(None, (), environ)
    assert resolved.settings == Settings()
    assert set(resolved.origins) == {key.name for key in texts}
    assert load_settings(config(as_yaml(resolve(None, (), {}))), (), {}) == Settings()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("events.fields.values", "[temp, nested.vib]", ("temp", "nested.vib")),
        ("events.fields.values", "*", "*"),
        ("events.fields.event_id", "null", None),
        ("topics.events", "2024", "2024"),
        ("learning.rate", "1e-4", 1e-4),
        ("http.enabled", "no", False),
        ("broker.path", "a=b.db", "a=b.db"),
    ],
)
def test_texts_become_values(key, text, value):
    """Texts of --set and of the environment are read according to the setting's type: a topic may be called 2024."""
    for settings in (
        load_settings(None, [f"{key}={text}"], {}),
        load_settings(None, (), {all_keys()[key].variable: text}),
    ):
        assert {k.name: v for k, v in leaf_values(settings)}[key] == value


def test_whole_section_as_one_text():
    """A section can be given as one YAML mapping, and a single key still takes precedence over it."""
    environ = {"STREAM_AD_BROKER": "{kind: kafka, path: a}", "STREAM_AD_BROKER__PATH": "b"}
    settings = load_settings(None, (), environ)
    assert (settings.broker.kind, settings.broker.path) == ("kafka", "b")


def test_section_within_a_section_as_one_text(config):
    """A key takes precedence over a nested section given as one text, and what neither sets comes from the file."""
    file = config("broker: {security: {username: u, ca_file: c}}")
    overrides = ["broker.security.ca_file=a.pem", "broker.security={protocol: SSL, ca_file: b.pem}"]
    security = load_settings(file, overrides, {}).broker.security
    assert (security.protocol, security.ca_file, security.username) == ("SSL", "a.pem", "u")


def test_empty_variables_do_not_count():
    """An empty variable counts as not set: Compose passes on variables that nobody set as empty texts."""
    assert load_settings(None, (), {"STREAM_AD_HTTP__PORT": "", "STREAM_AD_SECRETS_DIR": ""}) == Settings()


def test_all_problems_at_once_each_with_its_location(config):
    """One error lists what is wrong in every source, with location, key, value, and what was expected."""
    file = config("broker:\n  kind: kafak\n  path: 3\ntopics: {partitons: 2}\nhttp: 12\n")
    environ = {"STREAM_AD_TRESHOLD__WINDOW_EVENTS": "1", "STREAM_AD_LEARNING__RATE": "2"}
    text = refusal(file, ["detector.seed=x", "brokr.kind=kafka", "logs.level"], environ)
    for line in (
        f"{file}:2:3: broker.kind = 'kafak': should be 'sqlite' or 'kafka'",
        f"{file}:3:3: broker.path = 3: should be a valid string; put quotes around it",
        f"{file}:4:10: topics.partitons: there is no such setting; did you mean topics.partitions?",
        f"{file}:5:1: http: is a section; write http.NAME",
        "STREAM_AD_TRESHOLD__WINDOW_EVENTS: there is no such setting; did you mean STREAM_AD_THRESHOLD__WINDOW_EVENTS?",
        "STREAM_AD_LEARNING__RATE: learning.rate = '2': should be less than or equal to 1",
        "--set detector.seed = 'x': should be a valid integer",
        "--set brokr.kind: there is no such setting; did you mean broker.kind?",
        "--set logs.level: the value is missing; write --set logs.level=VALUE",
    ):
        assert line in text
    assert text.startswith("9 settings are wrong:")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1, 2", ":1:9: not valid YAML: expected ',' or ']'"),
        ("broker:\n\tkind: kafka", ":2:1: not valid YAML: found character '\\t'"),
        ("- a\n- b", ':1:1: settings must be lines of "key: value" in sections'),
        ("http: {port: 1}\nlogs: {}\nhttp: {port: 2}", "http is already set at"),
        ("a: 1\n---\nb: 2", ":2:1: not valid YAML: but found another document"),
        ("a: !!python/object:os.system {}", "not valid YAML: could not determine a constructor"),
        ("1: 2", ":1:1: 1: there is no such setting"),
        ("topics: {[a]: 2}", "not valid YAML"),
        ("logs: {level: 2001-99-99}", "not valid YAML: month must be in 1..12"),
    ],
)
def test_broken_files(config, text, said):
    """A file that is not YAML, is not a mapping, or sets a key twice is refused with line and column."""
    assert said in refusal(config(text))


def test_unreadable_files(tmp_path):
    """A file that does not exist or is not text is refused by its name."""
    assert f"{tmp_path / 'none.yaml'}: cannot be read: No such file" in refusal(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"broker: \xff")
    assert "bytes.yaml: not valid YAML" in refusal(tmp_path / "bytes.yaml")


def test_empty_file_sets_nothing(config):
    """A file of comments only is fine."""
    assert load_settings(config("# nothing yet\n"), (), {}) == Settings()


def test_yaml_anchors(config):
    """Anchors and merge keys are read as YAML has them."""
    file = config("http: &h {port: 1}\nbroker: {kind: kafka}\n")
    assert load_settings(file, (), {}).http.port == 1
    text = refusal(config("logs: &l {level: debug, colour: red}\nhttp: {<<: *l}\n"))
    assert "http.level: there is no such setting" in text


@pytest.mark.parametrize("name", ["PASSWORD_FILE", "PASSWORD__FILE"])
def test_password_from_a_file(tmp_path, name):
    """STREAM_AD_…_FILE names a file that holds the value, without the newline at its end."""
    (tmp_path / "secret").write_text("0123\n")
    environ = {f"STREAM_AD_BROKER__SECURITY__{name}": str(tmp_path / "secret")}
    password = load_settings(None, (), environ).broker.security.password
    assert password is not None
    assert password.get_secret_value() == "0123"
    assert "set only one of the two" in refusal(environ=environ | {PASSWORD: "x"})
    assert "secret cannot be read" in refusal(environ={k: f"{v}/secret" for k, v in environ.items()}).replace(
        "/secret/", ""
    )


def test_settings_that_end_in_file_are_settings():
    """key_file is a setting of its own and not the file that holds a setting "key"."""
    environ = {
        "STREAM_AD_BROKER__SECURITY__PROTOCOL": "SSL",
        "STREAM_AD_BROKER__SECURITY__KEY_FILE": "k.pem",
        "STREAM_AD_BROKER__SECURITY__CERTIFICATE_FILE": "c.pem",
    }
    assert load_settings(None, (), environ).broker.security.key_file == "k.pem"


def test_directory_of_secrets(tmp_path):
    """Files of other programs in the directory are ignored; one of ours with a wrong name is refused."""
    (tmp_path / "database_password").write_text("of another program")
    (tmp_path / "stream_ad_broker__security__password").write_text("[s3cret")
    environ = {"STREAM_AD_SECRETS_DIR": str(tmp_path)}
    password = load_settings(None, (), environ).broker.security.password
    assert password is not None
    assert password.get_secret_value() == "[s3cret"
    (tmp_path / "stream_ad_broker__pasword").write_text("x")
    assert "did you mean stream_ad_broker__security__password?" in refusal(environ=environ)
    assert "there is no directory /nowhere" in refusal(environ={"STREAM_AD_SECRETS_DIR": "/nowhere"})


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("topic.events", "topics.events"),
        ("broker.pasword", "broker.security.password"),
        ("http_port", "http.port"),
        ("partitions", "topics.partitions"),
        ("brokr", "broker"),
    ],
)
def test_the_key_that_was_meant(wrong, meant):
    """A misspelt or misplaced key is answered with the right one."""
    assert refusal(overrides=[f"{wrong}=1"]).startswith(
        f"--set {wrong}: there is no such setting; did you mean {meant}?"
    )


def test_nothing_alike():
    """A key that resembles none gets no guess."""
    assert refusal(overrides=["xyzzy=1"]).startswith("--set xyzzy: there is no such setting ")


def test_secrets_never_show(config):
    """A secret appears in no error, no repr and no output of `config show`."""
    resolved = resolve(None, (), {PASSWORD: "hunter2"})
    assert "hunter2" not in repr(resolved.settings) + as_yaml(resolved) + json.dumps(
        resolved.settings.model_dump(mode="json")
    )
    assert MASK in as_yaml(resolved)
    for text in (
        refusal(config("broker: {security: {password: [hunter2]}}")),
        refusal(overrides=["broker.security={password: hunter2, nonsense: hunter2}"]),
        refusal(environ={PASSWORD: "hunter2", "STREAM_AD_BROKER__SECURITY__MECHANISM": "PLAIN"}),
    ):
        assert "hunter2" not in text


def test_variables_of_kubernetes_are_left_alone():
    """A Service called stream-ad puts STREAM_AD_PORT and its like into every pod; they are not settings."""
    links = ("PORT", "SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT_9108_TCP", "PORT_9108_TCP_ADDR", "METRICS_SERVICE_PORT")
    assert load_settings(None, (), {f"STREAM_AD_{link}": "tcp://10.0.0.1:9108" for link in links}) == Settings()
    assert "no such setting" in refusal(environ={"STREAM_AD_HTTP_PORT_": "1"})


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["broker.security.protocol=SASL_SSL"], "protocol SASL_SSL needs mechanism, username, password too"),
        (["broker.security.mechanism=PLAIN"], "mechanism is given, but protocol PLAINTEXT does not log in"),
        (["broker.security.ca_file=a.pem"], "ca_file given, but protocol PLAINTEXT does not encrypt"),
        (
            ["broker.security.protocol=SSL", "broker.security.key_file=a.pem"],
            "certificate_file and key_file belong together",
        ),
        (["topics.labels=same", "topics.scores=same"], "labels and scores are both 'same'"),
        (["broker.bootstrap_servers=kafka-1:9092,kafka-2"], "'kafka-2' is not host:port"),
        (["broker.bootstrap_servers=kafka:99999"], "'kafka:99999' is not host:port"),
    ],
)
def test_contradictions(overrides, said):
    """Settings that contradict each other are refused with a sentence that names them."""
    assert said in refusal(overrides=overrides)


def test_ipv6_servers():
    """Kafka brokers may be given by IPv6 address."""
    assert (
        load_settings(None, ["broker.bootstrap_servers=[::1]:9092, b:1"], {}).broker.bootstrap_servers
        == "[::1]:9092, b:1"
    )


def test_origins(config):
    """Each value that is not the default has an origin, and `config show` prints it behind the value."""
    resolved = resolve(config("broker:\n  kind: kafka\n"), ["http.port=1"], {"STREAM_AD_LOGS": "{level: debug}"})
    assert resolved.origins["broker.kind"].endswith("stream-ad.yaml:2:3")
    assert resolved.origins["http.port"] == "--set http.port"
    assert resolved.origins["logs.level"] == "environment STREAM_AD_LOGS"
    assert set(resolved.origins) == {"broker.kind", "http.port", "logs.level"}
    assert "  port: 1  # --set http.port\n" in as_yaml(resolved)


def test_shown_settings_can_be_read_back(config):
    """What `config show` prints is a settings file that gives the same settings."""
    overrides = ["events.fields.values=[a, 'b: c']", "broker.path=ä # b.db", "learning.label_horizon_seconds=3600"]
    settings = load_settings(None, overrides, {})
    assert load_settings(config(as_yaml(resolve(None, overrides, {}))), (), {}) == settings


def settings_or_refusal(config, overrides) -> Settings | str:
    try:
        return load_settings(config, overrides, {})
    except SettingsError as error:
        return error.what


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["broker", "events", "fields"]), inner),
)


@examples(deadline=None)
@given(DOCUMENTS)
def test_any_yaml_gives_settings_or_a_refusal(tmp_path_factory, document):
    """Any YAML file is either read or refused with a SettingsError that says something."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert settings_or_refusal(path, ())


@examples(deadline=None)
@given(st.text(), st.sampled_from(sorted(all_keys())))
@example("?", "broker")
@example("{security: {1: 2}}", "broker")
@example("[2001-99-99]", "events.fields.values")
def test_any_text_gives_settings_or_a_refusal(text, name):
    """Any text given for a key is either read or refused with a SettingsError that names the key."""
    result = settings_or_refusal(None, [f"{name}={text}"])
    assert isinstance(result, Settings) or f"--set {name}" in result


def test_settings_are_frozen():
    """A setting cannot be changed once the tree is built."""
    with pytest.raises(ValueError, match="frozen"):
        Settings().http.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("file", "overrides", "environ", "place"),
    [
        ("threshold:\n  false_alarm_rate: 0.01\n", [], {}, ":2:3: threshold.false_alarm_rate was replaced"),
        ("", ["threshold.false_alarm_rate=0.01"], {}, "--set threshold.false_alarm_rate: was replaced"),
        ("", ["threshold={false_alarm_rate: 0.01}"], {}, "--set threshold: threshold.false_alarm_rate was replaced"),
        ("", [], {"STREAM_AD_THRESHOLD__FALSE_ALARM_RATE": "0.01"}, "THRESHOLD__FALSE_ALARM_RATE: was replaced"),
    ],
)
def test_a_replaced_setting_says_what_to_write(config, file, overrides, environ, place):
    """The rate of earlier versions is refused wherever it is written, with what states the promise now."""
    text = refusal(config(file), overrides, environ)
    assert place in text
    assert "for example alarms.false_incidents=1 and alarms.per=week; or alarms.per='1000 events'" in text
    with pytest.raises(ValueError, match=r"threshold\.false_alarm_rate was replaced: state the promise as alarms"):
        DetectorOptions.model_validate({"threshold": {"false_alarm_rate": 0.01}})


@pytest.mark.parametrize(
    ("file", "overrides", "environ", "place"),
    [
        ("drift:\n  enabled: false\n", [], {}, ":1:1: drift was removed"),
        ("", ["drift.threshold=2"], {}, "--set drift.threshold: was removed"),
        ("", ["drift={enabled: false}"], {}, "--set drift: was removed"),
        ("", [], {"STREAM_AD_DRIFT__ENABLED": "false"}, "STREAM_AD_DRIFT__ENABLED: was removed"),
    ],
)
def test_a_removed_section_says_to_delete_it(config, file, overrides, environ, place):
    """The section of the test for drift, which is gone, is refused wherever it is written, and said to be deleted."""
    text = refusal(config(file), overrides, environ)
    assert f"{place} with the test for drift: delete it, nothing takes its place" in text
    with pytest.raises(ValueError, match="drift was removed with the test for drift: delete it"):
        DetectorOptions.model_validate({"drift": {"enabled": False}})


ALARMS = """
alarms:
  false_incidents: 2
  per: 10000 events
  overrides:
    - sensors: press-*
      per: month
      features: {temp*: {direction: above, min_deviation: 5 %}, debug: {ignore: true}}
  windows:
    - rrule: |
        DTSTART;TZID=Europe/Berlin:20260105T020000
        RRULE:FREQ=WEEKLY;BYDAY=MO
      duration: 2 hours
    - sensors: press-7
      learn: no
      periods: [{start: 2026-11-22T01:00:00+01:00, end: 2026-11-22T03:00:00Z}]
"""


@pytest.mark.parametrize("text", ["0.1", "1"])
def test_the_form_of_scores_needs_no_quotes(config, text):
    """The form of the scores may be written as the number that it looks like."""
    for settings in (
        load_settings(config(f"scores: {{format: {text}}}"), (), {}),
        load_settings(None, [f"scores.format={text}"], {}),
    ):
        assert settings.scores.format == text


def test_alarms_can_be_read_back(config):
    """Overrides and windows of a file, or given as one text, are those that `config show` prints; "no" needs no quotes,
    though YAML reads it as false.
    """
    file = config(ALARMS)
    alarms = load_settings(file, (), {}).alarms
    assert (alarms.overrides[0].per, alarms.windows[1].learn, alarms.windows[0].duration) == ("month", "no", "2 hours")
    text = as_yaml(resolve(file, (), {}))
    assert load_settings(config(text), (), {}).alarms == alarms
    section = json.dumps(yaml.safe_load(text)["alarms"]["windows"])
    assert load_settings(None, [f"alarms.windows={section}"], {}).alarms.windows == alarms.windows


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{learn: never, ics: a}", "entry 2, learn = 'never': should be 'apart' or 'no'"),
        ("{rule: a}", "entry 2, rule: there is no such key"),
        ("{}", "entry 2: needs one of rrule, ics and periods, and has none"),
        ("{rrule: 'DTSTART:20260105T020000', duration: 1}", "entry 2: DTSTART has no time zone; end it with Z"),
        ("{rrule: 'DTSTART:20260105T020000Z', duration: soon}", "entry 2, duration = 'soon': 'soon' is no duration"),
        ("{periods: [{start: 2026-01-05, end: 2026-01-06T00:00:00Z}]}", "entry 2, periods, entry 1, start"),
        ("{ics: /nowhere/stops.ics}", "entry 2: ics file /nowhere/stops.ics cannot be read: No such file"),
    ],
)
def test_a_wrong_window_is_named_by_its_place(config, entry, said):
    """What is wrong with a window says where the list is, and which entry and key of it is meant."""
    file = config(f"alarms:\n  windows:\n    - {{rrule: 'DTSTART:20260105T020000Z', duration: 60}}\n    - {entry}\n")
    assert f"{file}:2:3: alarms.windows: {said}" in refusal(file)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["alarms.per=fortnight"], "'fortnight' is no period; write hour, day, week"),
        (["alarms.per=10 events", "alarms.false_incidents=11"], "more than one an event"),
        (["alarms.overrides=[{per: day}]"], "alarms.overrides: entry 1, sensors: Field required"),
        (
            ["alarms.overrides=[{sensors: a, features: {x: {min_deviation: 5 percent}}}]"],
            "entry 1, features, x, min_deviation = '5 percent': '5 percent' is no deviation; write a number",
        ),
        (["incidents.severity.critical_alarm=1.2"], "critical_alarm is below major_alarm"),
        (["incidents.severity.major_events=1000"], "critical_events is below major_events"),
    ],
)
def test_wrong_alarms(overrides, said):
    """What is wrong with budgets, overrides and severities names the setting and what may be written."""
    assert said in refusal(overrides=overrides)
