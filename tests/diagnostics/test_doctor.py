"""Promises of the doctor: it finds what would stop a worker, says what to do, changes nothing, exits with a code."""

from __future__ import annotations

import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream_ad.brokers.sqlite.shard_lock import ShardLock
from stream_ad.cli.app import app
from stream_ad.errors import BrokerError
from stream_ad.shard import snapshot_format as shard_state
from stream_ad.util.findings import Level, disk
from tests.support.soak_environment import Site, copy_site

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """Return the folder of a database that a worker has worked on."""
    folder = tmp_path_factory.mktemp("left")
    Site(folder, {"path": str(folder / "stream.db")}, steps=150).run()
    return folder


@pytest.fixture
def site(left, tmp_path):
    """Return the settings file of a copy of that database."""
    return copy_site(left, tmp_path)


def doctor(config, *more):
    """Return exit code and findings."""
    given = () if config is None else ("--config", str(config))
    result = CliRunner().invoke(app, ["doctor", "--json", *given, *more])
    assert isinstance(result.exception, SystemExit | None), result.exception
    report = json.loads(result.stdout)
    assert report["well"] == (result.exit_code == 0)
    for finding in report["findings"]:
        assert bool(finding["mend"]) == (finding["level"] != "ok")
    return result.exit_code, report["findings"]


def levels(findings, check):
    return {finding["level"] for finding in findings if finding["check"] == check}


def test_a_healthy_site_passes(site):
    """Everything is checked, nothing is wrong, the exit code is 0, and nothing has changed."""
    before = {path.name: path.read_bytes() for path in site.parent.iterdir()}
    code, findings = doctor(site)
    assert code == 0
    checks = {finding["check"] for finding in findings}
    assert checks >= {"settings", "versions", "clock", "device", "connection", "rights", "topics", "disk", "state"}
    assert {path.name: path.read_bytes() for path in site.parent.iterdir()} == before


@pytest.mark.parametrize(
    ("form", "headers", "check", "mended"),
    [
        ("1", "NULL", "scores", "set scores.format to 0.1"),
        ("0.1", "NULL", "settings", "then remove the setting"),
        ("0.1", None, "settings", "then remove the setting"),
        ("1", None, None, ""),
    ],
)
def test_consumers_that_would_go_silent_are_found(site, form, headers, check, mended):
    """Scores of 0.1, which had no header, and the setting scores.format=0.1 are warnings that say what to do."""
    if headers:
        with closing(sqlite3.connect(site.parent / "stream.db")) as database, database:
            database.execute(f"UPDATE records SET headers = {headers}")
    before = {path.name: path.read_bytes() for path in site.parent.iterdir()}
    code, findings = doctor(site, "--set", f"scores.format={form}")
    assert code == 0
    assert {path.name: path.read_bytes() for path in site.parent.iterdir()} == before
    warnings = [finding for finding in findings if finding["level"] == "warning"]
    assert [finding["check"] for finding in warnings] == ([check] if check else [])
    for finding in warnings:
        assert "is_anomaly, or alarm >= 1, in the place of score >= 1" in finding["mend"]
        assert mended in finding["mend"]


def test_scores_that_cannot_be_read_are_a_warning(site, monkeypatch):
    """Where the scores cannot be read, the doctor says why, and what to do; a worker is not kept from its work."""

    def refuse(_settings):
        raise BrokerError("No right to read.", hint="Grant it.")

    monkeypatch.setattr("stream_ad.diagnostics.doctor.open_reader", refuse)
    code, findings = doctor(site)
    assert code == 0
    (finding,) = [finding for finding in findings if finding["check"] == "scores"]
    assert (finding["what"], finding["mend"]) == ("not checked: No right to read.", "Grant it.")


def test_a_first_start_passes(tmp_path):
    """Before anything exists, nothing is wrong, and nothing is created."""
    code, findings = doctor(None, "--set", f"broker.path={tmp_path}/new.db")
    assert code == 0
    assert "does not exist yet" in next(finding["what"] for finding in findings if finding["check"] == "connection")
    assert list(tmp_path.iterdir()) == []


def test_wrong_settings_are_all_listed():
    """Each wrong setting is a finding; what can be checked without settings is checked all the same."""
    code, findings = doctor(None, "--set", "http.prot=1", "--set", "worker.step_records=0")
    assert code == 8
    assert len([finding for finding in findings if finding["check"] == "settings"]) == 2
    assert levels(findings, "settings") == {"problem"}
    assert levels(findings, "versions") == {"ok"}


@pytest.mark.parametrize(
    ("more", "check", "level", "said"),
    [
        (("--set", "topics.partitions=3"), "topics", "problem", "was created with 2 partitions"),
        (("--set", "http.host=0.0.0.0"), "settings", "warning", "other machines"),
        (("--set", "broker.path=/nowhere/a.db"), "connection", "problem", "/nowhere/a.db"),
        (("--set", "learning.batch_events=64"), "state", "warning", "does not fit the settings"),
    ],
)
def test_what_is_wrong_is_found(site, more, check, level, said):
    """A setting that does not fit what exists is found by the right check, and decides the exit code."""
    code, findings = doctor(site, *more)
    assert code == (8 if level == "problem" else 0)
    texts = [finding["what"] for finding in findings if (finding["check"], finding["level"]) == (check, level)]
    assert any(said in text for text in texts), findings


def test_a_device_that_is_not_there_is_found(site):
    """A GPU that is asked for and missing is a problem."""
    import torch  # noqa: PLC0415 - only to ask for the GPU

    code, _ = doctor(site, "--set", "detector.device=cuda")
    assert code == (0 if torch.cuda.is_available() else 8)


def test_a_password_on_the_command_line_is_found():
    """A password that every user can read, and an unencrypted network, are warnings."""
    security = "{protocol: SASL_PLAINTEXT, mechanism: PLAIN, username: u}"
    _, findings = doctor(
        None, "--set", "broker.kind=kafka", "--set", "broker.bootstrap_servers=192.0.2.1:9", "--set",
        f"broker.security={security}", "--set", "broker.security.password=hunter22", "--set",
        "broker.give_up_seconds=0.2",
    )  # fmt: skip
    warnings = [finding["what"] for finding in findings if finding["level"] == "warning"]
    assert any("command line" in text for text in warnings)
    assert any("unencrypted" in text for text in warnings)
    assert levels(findings, "connection") == {"problem"}
    assert "hunter22" not in json.dumps(findings)


def test_damage_is_found(site):
    """A damaged file and a damaged snapshot are found."""
    with closing(sqlite3.connect(site.parent / "stream.db")) as database, database:
        database.execute("UPDATE snapshot_parts SET data = x'00' WHERE shard = 1")
    code, findings = doctor(site)
    assert code == 0, "a worker finds its way"
    assert levels(findings, "state") == {"warning"}
    file = site.parent / "stream.db"
    data = bytearray(file.read_bytes())
    for page in range(len(data) // 2 // 4096 * 4096, len(data), 4096):
        data[page : page + 100] = b"\xff" * 100
    file.write_bytes(data)
    code, findings = doctor(site)
    assert code == 8
    assert any(finding["level"] == "problem" for finding in findings)


def test_a_foreign_format_is_found(site, monkeypatch):
    """Snapshots that another version wrote stop a worker; that is a problem, with both remedies."""
    monkeypatch.setattr(shard_state, "FORMAT", 99)
    code, findings = doctor(site)
    assert code == 8
    wrong = [finding for finding in findings if finding["level"] == "problem"]
    assert {finding["check"] for finding in wrong} == {"state"}
    assert "this program reads format 99" in wrong[0]["what"]
    assert "snapshots reset 0" in wrong[0]["mend"]


def test_lost_records_are_found(site):
    """Records deleted before they were read are a problem, or a warning where the policy skips them."""
    with closing(sqlite3.connect(site.parent / "stream.db")) as database, database:
        database.execute("UPDATE shards SET events = 5")
        database.execute("DELETE FROM records WHERE id & 1099511627775 < 9")
    assert doctor(site)[0] == 8
    code, findings = doctor(site, "--set", "broker.on_lost_records=continue")
    assert code == 0
    assert levels(findings, "state") == {"warning"}


def test_a_running_worker_is_shown(site):
    """The worker that owns the shards is shown, and is not a problem."""
    lock = ShardLock(site.parent / "stream.db", "stream-ad", 0)
    assert lock.acquire()
    code, findings = doctor(site)
    lock.release()
    assert code == 0
    assert f"process {os.getpid()}" in next(finding["what"] for finding in findings if finding["check"] == "workers")


def test_disks_are_checked():
    """Plenty of space is ok, less than a tenth a warning, less than is needed a problem."""
    checked = [disk("d", free, 10**12, needed=10**9, remediation="m").level for free in (10**11, 10**10, 10**8)]
    assert checked == [Level.OK, Level.WARNING, Level.PROBLEM]


def test_levels_are_words_that_scripts_know(site):
    """Without --json each finding begins with ok, warn or FAIL, and a summary counts failures and warnings."""
    overrides = ("--set", "http.host=0.0.0.0", "--set", "topics.partitions=3")
    result = CliRunner().invoke(app, ["doctor", "--config", str(site), *overrides])
    lines = result.stdout.splitlines()
    words = {line.split()[0] for line in lines[:-2] if not line.startswith(" ")}
    assert words == {"ok", "warn", "FAIL"}
    assert re.fullmatch(r"Failures: \d+\. Warnings: \d+\.", lines[-1])


@pytest.mark.parametrize("columns", [40, 100])
def test_a_terminal_of_any_width_shows_all(site, columns):
    """On a terminal no word is cut off, not even on a narrow one."""
    import fcntl  # noqa: PLC0415
    import struct  # noqa: PLC0415
    import termios  # noqa: PLC0415

    main, second = pty.openpty()
    fcntl.ioctl(second, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "stream_ad", "doctor", "--config", str(site), "--set", "http.host=0.0.0.0"],
        env={**inherited, "PYTHONPATH": str(ROOT), "TERM": "xterm", "NO_COLOR": "1"},
        stdout=second, stderr=second,
    )  # fmt: skip
    os.close(second)
    shown = b""
    while True:
        try:
            chunk = os.read(main, 65536)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    os.close(main)
    assert process.wait() == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode().replace("\r", "")).splitlines()
    assert max(map(len, lines)) <= columns
    words = " ".join(" ".join(lines).split())
    assert "They need no password" in " ".join(words.split())
    assert "…" not in words
