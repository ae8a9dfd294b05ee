"""Promises of the documentation: what follows from the code is fresh, and what it names exists."""

import importlib.util
import itertools
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stream_ad import errors
from stream_ad.brokers import open_reader
from stream_ad.cli.app import app
from stream_ad.cli.exit_codes import EXIT_CODES
from stream_ad.codec import Codec
from stream_ad.records.columns import RawRecords
from stream_ad.settings import Settings
from stream_ad.settings.keys import all_keys
from stream_ad.settings.loader import load_settings
from stream_ad.shard.label_store import LABEL_OUTCOMES

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def write_docs():
    """The script that makes the generated tables."""
    spec = importlib.util.spec_from_file_location("write_docs", ROOT / "tools" / "write_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["settings.md", "metrics.md", "exit-codes.md"])
def test_generated_tables_are_fresh(name):
    """The tables of settings, metrics and exit codes are those of the code; `make docs` writes them anew."""
    page = ROOT / "docs" / name
    assert page.read_text(encoding="utf-8") == write_docs().pages()[page]


def test_every_exit_code_is_told():
    """Each error of the library ends with a documented code, and stands in the tree drawn in stream_ad.errors."""
    for kind in write_docs().error_kinds():
        assert kind.exit_code in EXIT_CODES
        assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Every link from one page to another file of the project leads to it."""
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def shell_commands(page: Path) -> list[list[str]]:
    """The stream-ad commands in the shell blocks of a page."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == ["stream-ad"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    """Every stream-ad command of a page is one that the program has, with options that it takes."""
    for words in shell_commands(page):
        names = [word for word in words if re.fullmatch(r"[a-z]+", word)]
        command = names[:2] if names[0] in {"topics", "snapshots", "config"} else names[:1]
        shown = CliRunner().invoke(app, [*command, "--help"])
        assert shown.exit_code == 0, words
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert f"{option} " in shown.output, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_exist(page):
    """Every setting that a page names with --set or as `section.name` is one of the tree."""
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"--set '?([a-z_.]+)=", text))
    sections = "|".join(key for key in all_keys() if all_keys()[key].is_section and "." not in key)
    named |= set(re.findall(rf"`((?:{sections})\.[a-z_.]+)`", text))
    assert named <= set(all_keys())


def mappings() -> list[tuple[str, str]]:
    """The messages of docs/connect.md, each with the settings that stand below it."""
    text = (ROOT / "docs" / "connect.md").read_text(encoding="utf-8")
    return re.findall(r"```json\n([^`]*)```(?:\n\n```yaml\n([^`]*)```)?", text)


@pytest.mark.parametrize(("message", "settings"), mappings(), ids=itertools.count())
def test_examples_of_messages_are_read(message, settings, tmp_path):
    """Each message of the page on connecting a topic is read with the settings that stand below it."""
    (tmp_path / "a.yaml").write_text(settings)
    record = RawRecords("t", 0, np.array([0]), np.array([1_795_309_323_500]), [b"pump-7"], [message.encode()])
    events, dead = Codec(load_settings(tmp_path / "a.yaml", (), {})).decode_events(record)
    assert dead == []
    assert events.sensor_ids[0] in {"pump-7", "12"}
    assert len(events.blocks[0].features) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_settings_are_valid(page, tmp_path):
    """Each settings file of a page is accepted, given the password that it leaves out."""
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        load_settings(path, (), {"STREAM_AD_BROKER__SECURITY__PASSWORD": "secret"})


def test_examples_of_verdicts_are_read():
    """Each label of the page on verdicts is read."""
    text = (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8")
    values = [value.encode() for value in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    count = len(values)
    record = RawRecords("t", 0, np.arange(count), np.arange(count), [b"pump-7"] * count, values)
    labels, dead = Codec(Settings()).decode_labels(record)
    assert dead == []
    assert labels.names == ["bearing", "normal", None]


def test_outcomes_are_told():
    """The page on verdicts explains every outcome that a verdict can have, and no other."""
    rows = re.findall(
        r"^\|.*\| `([a-z_]+)` \|$", (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert set(rows) == set(LABEL_OUTCOMES)


def test_python_of_the_pages_runs(tmp_path, monkeypatch):
    """The program on the page about verdicts sends a label to the embedded broker."""
    text = (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stream-ad.yaml").write_text("broker: {path: a.db}\n")
    exec(compile(program, "verdicts.md", "exec"), {})
    reader = open_reader(load_settings(tmp_path / "stream-ad.yaml", (), {}))
    assert [key for key, _ in reader.read("sensor-labels")] == [b"pump-7"]
    reader.close()
