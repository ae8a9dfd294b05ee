"""The doctor finds what would trouble a worker, says the mend, changes nothing, and ends with a code for scripts."""

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
from stream_ad.shard import snapshot_format as shard_state
from stream_ad.util.findings import Level, disk
from tests.support.soak_environment import Site, copy_site

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """A database that a worker has worked on."""
    folder = tmp_path_factory.mktemp("left")
    Site(folder, {"path": str(folder / "stream.db")}, steps=150).run()
    return folder


@pytest.fixture
def site(left, tmp_path):
    return copy_site(left, tmp_path)


def doctor(config, *more):
    """Exit code and findings."""
    given = () if config is None else ("--config", str(config))
    result = CliRunner().invoke(app, ["doctor", "--json", *given, *more])
    assert isinstance(result.exception, SystemExit | None), result.exception
    told = json.loads(result.stdout)
    assert told["well"] == (result.exit_code == 0)
    for one in told["findings"]:
        assert bool(one["mend"]) == (one["level"] != "ok")
    return result.exit_code, told["findings"]


def levels(findings, check):
    return {one["level"] for one in findings if one["check"] == check}


def test_a_good_place_is_well(site):
    """Everything is looked at, nothing is wrong, the exit code is 0, and nothing has changed."""
    before = {path.name: path.read_bytes() for path in site.parent.iterdir()}
    code, found = doctor(site)
    assert code == 0
    looked_at = {one["check"] for one in found}
    assert looked_at >= {"settings", "versions", "clock", "device", "connection", "rights", "topics", "disk", "state"}
    assert {path.name: path.read_bytes() for path in site.parent.iterdir()} == before


def test_a_first_start_is_well(tmp_path):
    """Before anything exists, nothing is wrong, and nothing is made."""
    code, found = doctor(None, "--set", f"broker.path={tmp_path}/new.db")
    assert code == 0
    assert "is not there yet" in next(one["what"] for one in found if one["check"] == "connection")
    assert list(tmp_path.iterdir()) == []


def test_wrong_settings_are_all_listed():
    """Each wrong setting is a finding; what can be looked at without settings is looked at all the same."""
    code, found = doctor(None, "--set", "http.prot=1", "--set", "worker.step_records=0")
    assert code == 8
    assert len([one for one in found if one["check"] == "settings" and one["level"] == "problem"]) == 2
    assert levels(found, "versions") == {"ok"}


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
    """A setting that does not fit what is there is found where it matters, and decides the exit code."""
    code, found = doctor(site, *more)
    assert code == (8 if level == "problem" else 0)
    assert any(one["check"] == check and one["level"] == level and said in one["what"] for one in found), found


def test_a_device_that_is_not_there_is_found(site):
    """A GPU that is asked for and not there is a problem, with the mend."""
    import torch  # noqa: PLC0415 - only to ask for the GPU

    code, _ = doctor(site, "--set", "detector.device=cuda")
    assert code == (0 if torch.cuda.is_available() else 8)


def test_a_password_on_the_command_line_is_found():
    """A password where every user can read it, and a network where everybody can, are worth a look."""
    security = "{protocol: SASL_PLAINTEXT, mechanism: PLAIN, username: u}"
    _, found = doctor(
        None, "--set", "broker.kind=kafka", "--set", "broker.bootstrap_servers=192.0.2.1:9", "--set",
        f"broker.security={security}", "--set", "broker.security.password=hunter22", "--set",
        "broker.give_up_seconds=0.2",
    )  # fmt: skip
    told = [one["what"] for one in found if one["level"] == "warning"]
    assert any("command line" in text for text in told)
    assert any("unencrypted" in text for text in told)
    assert levels(found, "connection") == {"problem"}
    assert "hunter22" not in json.dumps(found)


def test_damage_is_found(site):
    """A damaged file and a damaged snapshot are found."""
    with closing(sqlite3.connect(site.parent / "stream.db")) as database, database:
        database.execute("UPDATE snapshot_parts SET data = x'00' WHERE shard = 1")
    code, found = doctor(site)
    assert code == 0, "a worker finds its way"
    assert levels(found, "state") == {"warning"}
    file = site.parent / "stream.db"
    data = bytearray(file.read_bytes())
    for page in range(len(data) // 2 // 4096 * 4096, len(data), 4096):
        data[page : page + 100] = b"\xff" * 100
    file.write_bytes(data)
    code, found = doctor(site)
    assert code == 8
    assert any(one["level"] == "problem" for one in found)


def test_a_foreign_format_is_found(site, monkeypatch):
    """Snapshots that another version wrote stop a worker; that is a problem, with both ways out."""
    monkeypatch.setattr(shard_state, "FORMAT", 99)
    code, found = doctor(site)
    assert code == 8
    wrong = [one for one in found if one["level"] == "problem"]
    assert {one["check"] for one in wrong} == {"state"}
    assert "this program reads format 99" in wrong[0]["what"]
    assert "snapshots reset 0" in wrong[0]["mend"]


def test_lost_records_are_found(site):
    """Records deleted before they were read are a problem, or worth a look where the policy steps over them."""
    with closing(sqlite3.connect(site.parent / "stream.db")) as database, database:
        database.execute("UPDATE shards SET events = 5")
        database.execute("DELETE FROM records WHERE id & 1099511627775 < 9")
    assert doctor(site)[0] == 8
    code, found = doctor(site, "--set", "broker.on_lost_records=continue")
    assert code == 0
    assert levels(found, "state") == {"warning"}


def test_a_running_worker_is_shown(site):
    """Who works on the shards is said, and is no fault."""
    lock = ShardLock(site.parent / "stream.db", "stream-ad", 0)
    assert lock.acquire()
    code, found = doctor(site)
    lock.release()
    assert code == 0
    assert f"process {os.getpid()}" in next(one["what"] for one in found if one["check"] == "workers")


def test_disks_are_judged():
    """Plenty is well, less than a tenth is worth a look, less than is needed is wrong."""
    judged = [disk("d", free, 10**12, needed=10**9, remediation="m").level for free in (10**11, 10**10, 10**8)]
    assert judged == [Level.OK, Level.WARNING, Level.PROBLEM]


@pytest.mark.parametrize("columns", [40, 100])
def test_a_terminal_of_any_width_shows_all(site, columns):
    """On a terminal no word is cut off, on a narrow one neither."""
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
            some = os.read(main, 65536)
        except OSError:
            break
        if not some:
            break
        shown += some
    os.close(main)
    assert process.wait() == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode().replace("\r", "")).splitlines()
    assert max(map(len, lines)) <= columns
    words = " ".join(" ".join(lines).split())
    assert "Nothing there asks for a password" in " ".join(words.split())
    assert "…" not in words
