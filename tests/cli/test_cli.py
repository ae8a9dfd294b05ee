"""Promises of the command line, tested with real processes: exit codes, streams, texts of errors."""

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from stream_ad import __version__
from stream_ad.brokers import open_producer, open_reader
from stream_ad.cli.app import app
from stream_ad.cli.exit_codes import EXIT_CODES
from stream_ad.cli.help import PlainGroup
from stream_ad.settings.loader import load_settings

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "run", "incidents", "scores", "demo", "replay", "simulate", "backtest", "doctor", "health", "topics", "snapshots",
    "config",
)  # fmt: skip
NOWHERE = ("--set", "broker.kind=kafka", "--set", "broker.bootstrap_servers=127.0.0.1:1")
FIRST_START = """
import numba
from stream_ad.worker import process_setup
process_setup._use_every_loop = lambda: numba.njit(lambda x: x + 1)(1)
from stream_ad.cli.app import app
app()
"""
SECRET = {"STREAM_AD_BROKER__SECURITY__PASSWORD": "hunter2"}


def environment(**extra: str) -> dict[str, str]:
    """Return the environment of the test without settings of stream-ad, and with the package on Python's path."""
    plain = {
        name: text for name, text in os.environ.items() if not name.startswith("STREAM_AD_") and name != "NO_COLOR"
    }
    return plain | {"PYTHONPATH": str(ROOT)} | extra


@pytest.fixture
def stream_ad(tmp_path):
    """Return a function that runs ``stream-ad`` with arguments in an empty folder until it exits."""

    def run(*arguments: str, program: tuple[str, ...] = ("-m", "stream_ad"), **extra: str):
        return subprocess.run(
            [sys.executable, *program, *arguments],
            cwd=tmp_path,
            env=environment(**extra),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_help_lists_commands_and_exit_codes(stream_ad):
    """--help, -h and no argument at all show every command and every exit code, and end with 0."""
    shown = {stream_ad(*arguments).stdout for arguments in (("--help",), ("-h",), ())}
    assert len(shown) == 1
    lines = shown.pop().splitlines()
    for command in COMMANDS:
        assert any(line.startswith(f"  {command} ") for line in lines)
    for code, meaning in EXIT_CODES.items():
        assert f"    {code:<4} {meaning}" in lines
    assert stream_ad().returncode == stream_ad("-h").returncode == 0


@pytest.mark.parametrize(
    "command", [*((name,) for name in COMMANDS), ("topics", "apply"), ("config", "show"), ("snapshots", "restore")]
)
def test_every_command_has_help(command):
    """Each command explains itself; those that read settings take --config and --set (the demo brings its own)."""
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    if command not in {("demo",), ("topics",), ("snapshots",), ("config",)}:
        assert "--config" in result.output
        assert "--set" in result.output


def commands(group=None, path=()):
    """Yield every command with the words that call it."""
    for name, command in (group or get_command(app)).commands.items():
        if isinstance(command, PlainGroup):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL_COMMANDS = dict(commands())


@pytest.mark.parametrize("path", ALL_COMMANDS, ids=" ".join)
def test_help_names_values_in_plain_words(path):
    """No placeholder of an option or argument is the name of a Python type, and no help uses an old word."""
    text = CliRunner().invoke(app, [*path, "--help"]).output
    assert not re.search(r"<\w[^<>=]*>", text)
    assert "verdict" not in text.lower()


@pytest.mark.parametrize("path", ALL_COMMANDS, ids=" ".join)
def test_every_command_has_an_example_that_can_be_called(path):
    """The help of each command ends with an example of it, whose command line is right."""
    command = ALL_COMMANDS[path]
    examples = [line.split()[1:] for line in command.epilog.splitlines()[2:]]
    assert examples
    for words in examples:
        assert tuple(words[: len(path)]) == path
        arguments = words[len(path) :]
        redirected = arguments.index(">") if ">" in arguments else len(arguments)
        command.make_context(path[-1], arguments[:redirected])


def test_completion(stream_ad):
    """The shell gets the commands that begin with what was typed, and the options of a command."""
    words = {"_STREAM_AD_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    assert stream_ad(COMP_WORDS="stream-ad s", **words).stdout.split() == ["scores", "simulate", "snapshots"]
    words["COMP_CWORD"] = "2"
    options = stream_ad(COMP_WORDS="stream-ad simulate --", **words).stdout.split()
    assert "--label-delay" in options
    assert "--verdict-delay" not in options


@pytest.mark.parametrize(
    ("old", "new", "value"), [("--verdicts", "--label-form", "intervals"), ("--verdict-delay", "--label-delay", "60")]
)
def test_old_names_of_options(stream_ad, old, new, value):
    """An option under its old name does what the new one does, and a warning names the new one."""
    rest = ("simulate", "--json", "--speed", "max", "--seconds", "0", "--set", "broker.path=a.db")
    result = stream_ad(*rest, old, value)
    assert result.returncode == 0
    assert result.stderr == f"warning: {old} is now {new}; the old name will go with version 1.0.\n"
    assert stream_ad(*rest, new, value).stderr == ""


def test_version(stream_ad):
    """--version prints name and version on standard output."""
    assert stream_ad("--version").stdout == f"stream-ad {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("frobnicate",), 2, "No such command 'frobnicate'"),
        (("versino",), 2, "No such command 'versino'. Did you mean '--version'?"),
        (("doctro",), 2, "No such command 'doctro'. Did you mean 'doctor'?"),
        (("snapshots", "lst"), 2, "No such command 'lst'. Did you mean 'list'?"),
        (("config", "validte"), 2, "No such command 'validte'. Did you mean 'validate'?"),
        (("topics", "zzz"), 2, "No such command 'zzz'.\n"),
        (("run", "--untill-idle", "1"), 2, "--until-idle"),
        (("run", "--until-idle", "soon"), 2, "--until-idle"),
        (("replay", "a.csv", "--speed", "fast"), 2, "neither a speed such as 60x nor max"),
        (("replay",), 2, "FILE"),
        (
            ("config", "show", "--set", "http.prot=1"),
            3,
            "--set http.prot: there is no such setting; did you mean http.port?",
        ),
        (("run", "--config", "none.yaml"), 3, "none.yaml: cannot be read: No such file or directory"),
        (("health", "--set", "http.enabled=false"), 3, "there is no address to ask"),
        (("topics", "apply", "--set", "broker.path=none/a.db"), 4, "none/a.db"),
        (
            ("topics", "plan", *NOWHERE, "--set", "broker.give_up_seconds=1"),
            4,
            "No Kafka broker answered at 127.0.0.1:1",
        ),
        (("replay", "none.csv"), 5, "none.csv"),
        (("health", "--set", "http.port=1"), 1, "No worker answers at http://127.0.0.1:1/readyz"),
    ],
)
def test_mistakes_of_the_user(stream_ad, arguments, code, said):
    """A mistake ends with its documented code and a sentence on standard error; no traceback, no output."""
    result = stream_ad(*arguments)
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert result.returncode == code
    assert code in EXIT_CODES


def test_errors_say_what_to_do(stream_ad):
    """An error says what happened and, on the next line, what to do about it."""
    what, hint = stream_ad("health", "--set", "http.port=1").stderr.splitlines()
    assert what.startswith("error: No worker answers")
    assert hint == "  Is `stream-ad run` running, with the same http.host and http.port?"


BROKEN = ("-c", "import stream_ad.settings as s; del s.Settings; from stream_ad.cli.app import main; main()")


def test_unexpected_failure(stream_ad):
    """A defect exits with 1, a short message and the way to a traceback; --debug prints the traceback."""
    result = stream_ad("config", "schema", program=BROKEN)
    assert result.returncode == 1
    assert "Unexpected failure: ImportError: cannot import name 'Settings'" in result.stderr
    assert "`stream-ad --debug config schema` shows it." in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in stream_ad("--debug", "config", "schema", program=BROKEN).stderr


def test_a_worker_ends_in_its_log(stream_ad):
    """The error that ends a worker is in its log, in the format of the log, with what to do about it."""
    result = stream_ad("run", "--set", "broker.path=none/a.db", "--set", "http.enabled=false")
    assert result.returncode == 4
    last = json.loads(result.stderr.splitlines()[-1])
    assert last["level"] == "critical"
    assert "none/a.db" in last["event"]


def test_output_that_nobody_reads(tmp_path):
    """When the reader of a pipe leaves, as `head` does, the command exits without a traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-m", "stream_ad", "config", "schema"],
        cwd=tmp_path,
        env=environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert result.stderr == ""
    assert result.returncode in EXIT_CODES


def on_terminal(*arguments: str, cwd: Path, stream: str = "stderr", code: int | None = None, **extra: str) -> str:
    """Return what stream-ad writes to a stream that is a terminal; it must exit with ``code``, or with any but 0."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "stream_ad", *arguments],
        cwd=cwd,
        env=environment(TERM="xterm", **extra),
        **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: theirs},
    )
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 4096):
            written += chunk
    except OSError:  # how Linux reports that the other end has closed
        pass
    os.close(ours)
    ended = process.wait(timeout=60)
    assert ended != 0 if code is None else ended == code
    return written.decode()


def test_colours_on_terminals_only(tmp_path, stream_ad):
    """Errors are coloured on a terminal, but not with NO_COLOR and not in a pipe."""
    wrong = ("config", "validate", "--set", "a=b")
    assert "\x1b[" in on_terminal(*wrong, cwd=tmp_path)
    assert "\x1b[" not in on_terminal(*wrong, cwd=tmp_path, NO_COLOR="1")
    assert "\x1b[" not in stream_ad(*wrong).stderr


def test_tables_are_drawn_on_a_terminal_only(tmp_path, stream_ad):
    """A table has lines on a terminal, and is plain columns in a pipe; both hold the same words."""
    plan = ("topics", "plan", "--set", "broker.path=a.db")
    drawn = on_terminal(*plan, cwd=tmp_path, stream="stdout", code=0, COLUMNS="120", NO_COLOR="1")
    piped = stream_ad(*plan).stdout
    assert "─" in drawn
    assert "─" not in piped
    assert piped.split() == [word for word in re.sub(r"\x1b\[[0-9;]*m", "", drawn).split() if set(word) != {"─"}]


def test_config_show(stream_ad, tmp_path):
    """`config show` prints the settings in force, with origins and without secrets."""
    (tmp_path / "a.yaml").write_text("http: {port: 1234}\n")
    result = stream_ad("config", "show", STREAM_AD_CONFIG="a.yaml", **SECRET)
    assert "  port: 1234  # a.yaml:1:8\n" in result.stdout
    assert "# environment STREAM_AD_BROKER__SECURITY__PASSWORD" in result.stdout
    assert "hunter2" not in result.stdout
    as_json = stream_ad("config", "show", "--json", "-c", "a.yaml", **SECRET).stdout
    assert "hunter2" not in as_json
    assert json.loads(as_json)["http"]["port"] == 1234


def test_config_validate(stream_ad):
    """`config validate` lists everything that is wrong, or says that nothing is; also as JSON."""
    assert stream_ad("config", "validate").stdout == "The settings are valid.\n"
    assert json.loads(stream_ad("config", "validate", "--json").stdout) == {"valid": True, "problems": []}
    result = stream_ad("config", "validate", "--json", "--set", "a=1", "--set", "http.port=x")
    assert result.returncode == 3
    answer = json.loads(result.stdout)
    assert answer["valid"] is False
    assert len(answer["problems"]) == 2


def test_config_schema(stream_ad):
    """`config schema` prints a JSON Schema with every section."""
    schema = json.loads(stream_ad("config", "schema").stdout)
    assert schema["type"] == "object"
    assert {"broker", "topics", "events", "learning", "http"} <= set(schema["properties"])


def test_topics(stream_ad):
    """`topics apply` creates what `topics plan` calls missing; afterwards there is nothing to do."""
    broker = ("--set", "broker.path=a.db", "--set", "topics.partitions=2")
    planned = json.loads(stream_ad("topics", "plan", "--json", *broker).stdout)
    assert {topic["topic"] for topic in planned} >= {"sensor-events", "sensor-labels", "anomaly-scores"}
    assert not any(topic["exists"] for topic in planned)
    assert "created" in stream_ad("topics", "apply", *broker).stdout
    again = stream_ad("topics", "plan", *broker).stdout.splitlines()
    assert again[0].split() == ["ROLE", "TOPIC", "PARTITIONS", "STATE"]
    assert all(line.endswith("exists") for line in again[1:])
    assert stream_ad("topics", "plan", *broker[:2], "--set", "topics.partitions=3").returncode == 4


@pytest.fixture
def worker_that_answers():
    """Return a server on a free port, and its handler, whose ``status`` /readyz answers with."""

    class Handler(BaseHTTPRequestHandler):
        status = 200

        def do_GET(self):
            self.send_response(self.status if self.path == "/readyz" else 200)
            self.end_headers()
            self.wfile.write(f"state of {self.path}\n".encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server, Handler
        server.shutdown()
        thread.join()


def test_health(stream_ad, worker_that_answers):
    """`health` exits with 0 when the worker is ready, otherwise with 1; --live asks /livez; no proxy is used."""
    server, handler = worker_that_answers
    address = ("--set", f"http.port={server.server_port}", "--set", "http.host=0.0.0.0")
    well = stream_ad("health", *address, http_proxy="http://127.0.0.1:1")
    assert (well.returncode, well.stdout) == (0, "state of /readyz\n")
    handler.status = 503
    ill = stream_ad("health", *address)
    assert ill.returncode == 1
    assert "answers 503: state of /readyz" in ill.stderr
    assert stream_ad("health", "--live", *address).stdout == "state of /livez\n"


def signalled(*arguments: str, number: signal.Signals, cwd: Path) -> tuple[int, str]:
    """Return exit code and output of a command that gets a signal once it has written an event."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stream_ad", *arguments, "--set", "broker.path=a.db"],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    settings = load_settings(None, [f"broker.path={cwd / 'a.db'}"], {})
    open_producer(settings).close()  # makes the file
    with closing(open_reader(settings)) as reader:
        while not reader.read("sensor-events", timeout_s=0.1):
            assert process.poll() is None
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def test_simulation_that_is_ended(tmp_path):
    """SIGTERM ends `simulate` with 0, and it still prints what it has written."""
    code, output = signalled("simulate", "--json", number=signal.SIGTERM, cwd=tmp_path)
    assert code == 0
    assert json.loads(output)["events"] > 0


def test_replay_that_is_interrupted(tmp_path):
    """SIGINT ends `replay` with 130: not everything has been written, and it prints how much has."""
    rows = "".join(f"2026-01-01T{hour:02d}:00:00Z,a,,1\n" for hour in range(24))
    (tmp_path / "a.csv").write_text("timestamp,sensor_id,label,x\n" + rows)
    code, output = signalled("replay", "a.csv", "--speed", "1x", "--json", number=signal.SIGINT, cwd=tmp_path)
    assert code == 130
    assert 0 < json.loads(output)["events"] < 24


def test_from_recording_to_scores(stream_ad, tmp_path):
    """`replay` and `run --until-idle` turn a recording into one score per row, under the rows' ids."""
    rows = 40
    with (tmp_path / "pumps.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["timestamp", "sensor_id", "label", "temp", "vib"])
        for row in range(rows):
            stamp = f"2026-01-01T00:00:{row:02d}Z"
            table.writerow([stamp, f"pump-{row % 2}", "normal", 20 + row % 5, "" if row == 7 else row % 3])
    settings = ("--set", "broker.path=a.db", "--set", "topics.partitions=2", "--set", "http.enabled=false")
    written = stream_ad("replay", "pumps.csv", "--label-delay", "3", "--json", *settings)
    assert written.stderr == ""
    assert json.loads(written.stdout).items() >= {"events": rows, "labels": rows}.items()
    ran = stream_ad("run", "--until-idle", "0.5", *settings, program=("-c", FIRST_START))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    log = [json.loads(line) for line in ran.stderr.splitlines()]
    assert {line["level"] for line in log} == {"info"}
    messages = [line["event"] for line in log if "the detector's loops" in line["event"]]
    assert [text.split()[0] for text in messages] == ["compiling", "compiled"]
    with closing(open_reader(load_settings(None, [f"broker.path={tmp_path / 'a.db'}", *settings[3::2]], {}))) as reader:
        scores = [json.loads(value) for _, value in reader.read("anomaly-scores")]
        assert sorted(score["event_id"] for score in scores) == sorted(f"pumps-{row + 1}" for row in range(rows))
        assert reader.read("dead-letters") == []
