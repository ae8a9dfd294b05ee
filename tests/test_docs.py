"""Promises of the documentation: generated parts are up to date, and what it names exists."""

import functools
import importlib.util
import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from stream_ad import errors
from stream_ad.brokers import open_reader
from stream_ad.cli.app import app
from stream_ad.cli.exit_codes import EXIT_CODES
from stream_ad.codec import Codec
from stream_ad.records.columns import RawRecords
from stream_ad.records.schemas import AnomalyScore, Incident, Label, SensorEvent
from stream_ad.settings import Settings
from stream_ad.settings.keys import all_keys
from stream_ad.settings.loader import load_settings
from stream_ad.shard.label_store import LABEL_OUTCOMES

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
MESSAGES, LABELS = DOCS / "reference" / "messages.md", DOCS / "how-to" / "label-events.md"
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@functools.cache
def text_of(page):
    return page.read_text(encoding="utf-8")


def write_docs():
    """Return the module that writes the generated parts of the pages."""
    folder = str(ROOT / "tools")
    spec = importlib.util.spec_from_file_location("write_docs", ROOT / "tools" / "write_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, folder)  # it imports another tool
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module


@pytest.mark.parametrize(
    "name",
    [
        "reference/settings.md", "reference/metrics.md", "reference/commands.md", "reference/exit-codes.md",
        "explanation/architecture.md",
    ],
)  # fmt: skip
def test_generated_parts_are_fresh(name):
    """Settings, metrics, commands, exit codes and the import graph are those of the code; `make docs` writes them."""
    assert text_of(DOCS / name) == write_docs().pages()[DOCS / name]


def test_every_exit_code_is_documented():
    """Each error of the library exits with a documented code, and is in the tree drawn in stream_ad.errors."""
    for kind in write_docs().error_kinds():
        assert kind.exit_code in EXIT_CODES
        assert kind.__name__ in (errors.__doc__ or "")


def anchors(page):
    """Return the anchors of a page's headings, as GitHub and mkdocs make them; none of generated API pages."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_anchors_are_made_as_sites_make_them():
    """The anchor of a heading is its text in lower case, without punctuation, hyphens for spaces."""
    assert {"streamaddown", "models-look-at-them-go-back", "defaults-and-why"} <= {
        anchor for page in PAGES for anchor in anchors(page)
    }


@EACH_PAGE
def test_links_lead_somewhere(page):
    """Every link from a page leads to an existing file, and to an existing heading in it."""
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text_of(page)):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_is_in_the_navigation():
    """The navigation of the site names every page once, and no page that does not exist."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def pages_of(entry):
        if isinstance(entry, str):
            return [entry]
        return [page for part in (entry if isinstance(entry, list) else entry.values()) for page in pages_of(part)]

    assert sorted(pages_of(config["nav"])) == sorted(str(page.relative_to(DOCS)) for page in PAGES[1:])


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    """The site builds without a warning, and none of its pages loads anything from another host."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    subprocess.run(command, cwd=ROOT, check=True)
    loaded = r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=[\"']?https?://[^\"'\s>]+"
    for built in (tmp_path / "site").rglob("*.html"):
        assert not re.findall(loaded, built.read_text(encoding="utf-8")), built


def test_figures_of_the_readme_are_those_of_the_pages():
    """Each figure in the tables of the README is also in a table of the explanation pages."""
    rows = re.findall(r"^\|(.+)\|$", text_of(ROOT / "README.md"), re.MULTILINE)
    figures = {figure for row in rows for figure in re.findall(r"\b\d[\d,]*\.\d+\b|\b\d+,\d{3}\b", row)} - {"1,000"}
    pages = "\n".join(text_of(page) for page in (DOCS / "explanation").glob("*.md"))
    assert len(figures) >= 16
    assert not {figure for figure in figures if figure not in pages}


def samples(page, key):
    """Return the JSON messages of a page that have a field of this name."""
    blocks = re.findall(r"```json[^\n]*\n(.*?)```", text_of(page), re.DOTALL)
    return [message for message in map(json.loads, blocks) if key in message]


@pytest.mark.parametrize("page", [ROOT / "README.md", MESSAGES], ids=lambda page: page.name)
def test_samples_are_messages(page):
    """Every sample of an event, label, score and incident fits the wire formats."""
    for key, model in (("score", AnomalyScore), ("peak_event_id", Incident), ("label", Label)):
        messages = samples(page, key)
        assert messages
        for message in messages:
            model.model_validate_json(json.dumps(message))
    assert any(
        SensorEvent.model_validate_json(json.dumps(message))
        for message in samples(page, "sensor_id")
        if isinstance(message.get("values"), dict)
    )


def shell_commands(page: Path) -> list[list[str]]:
    """Return the stream-ad commands in the shell blocks of a page."""
    blocks = re.findall(r"```sh\n(.*?)```", text_of(page), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == ["stream-ad"]]


@EACH_PAGE
def test_commands_exist(page):
    """Every stream-ad command of a page exists, with the options that the page uses."""
    for words in shell_commands(page):
        names = [word for word in words if re.fullmatch(r"[a-z]+", word)]
        command = names[:2] if names[0] in {"topics", "snapshots", "config"} else names[:1]
        shown = CliRunner().invoke(app, [*command, "--help"])
        assert shown.exit_code == 0, words
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert f"{option} " in shown.output, words


@EACH_PAGE
def test_settings_exist(page):
    """Every setting that a page names with --set or as `section.name` exists."""
    text = text_of(page)
    named = set(re.findall(r"--set '?([a-z_.]+)=", text))
    sections = "|".join(key for key in all_keys() if all_keys()[key].is_section and "." not in key)
    named |= set(re.findall(rf"`((?:{sections})\.[a-z_.]+)`", text))
    assert named <= set(all_keys())


def mappings() -> list[tuple[str, str]]:
    """Return the input messages of the page on messages, each with the settings below it."""
    return re.findall(r"```json\n([^`]*)```(?:\n\n```yaml\n([^`]*)```)?", text_of(MESSAGES))


@pytest.mark.parametrize(("message", "settings"), mappings(), ids=itertools.count())
def test_examples_of_messages_are_read(message, settings, tmp_path):
    """Each input message of the page on messages is read with the settings below it."""
    (tmp_path / "a.yaml").write_text(settings)
    record = RawRecords("t", 0, np.array([0]), np.array([1_795_309_323_500]), [b"pump-7"], [message.encode()])
    events, dead = Codec(load_settings(tmp_path / "a.yaml", (), {})).decode_events(record)
    assert dead == []
    assert events.sensor_ids[0] in {"pump-7", "12"}
    assert len(events.blocks[0].features) == 2


@EACH_PAGE
def test_examples_of_settings_are_valid(page, tmp_path):
    """Each settings file of a page is valid, given the password that it omits."""
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", text_of(page), re.DOTALL)):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        load_settings(path, (), {"STREAM_AD_BROKER__SECURITY__PASSWORD": "secret"})


def test_examples_of_labels_are_read():
    """Each label of the page on labels is read."""
    text = text_of(LABELS)
    values = [value.encode() for value in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    count = len(values)
    record = RawRecords("t", 0, np.arange(count), np.arange(count), [b"pump-7"] * count, values)
    labels, dead = Codec(Settings()).decode_labels(record)
    assert dead == []
    assert labels.names == ["bearing", "normal", None]


def test_outcomes_are_documented():
    """The page on labels explains every outcome that a label can have, and no other."""
    assert set(re.findall(r"^\|.*\| `([a-z_]+)` \|$", text_of(LABELS), re.MULTILINE)) == set(LABEL_OUTCOMES)


def test_python_of_the_page_on_labels_runs(tmp_path, monkeypatch):
    """The program on the page about labels sends a label to the embedded broker."""
    (program,) = re.findall(r"```python\n(.*?)```", text_of(LABELS), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stream-ad.yaml").write_text("broker: {path: a.db}\n")
    exec(compile(program, LABELS.name, "exec"), {})
    reader = open_reader(load_settings(tmp_path / "stream-ad.yaml", (), {}))
    assert [key for key, _ in reader.read("sensor-labels")] == [b"pump-7"]
    reader.close()


def test_python_of_the_first_tutorial_runs(tmp_path, monkeypatch, capsys):
    """The programs of the first tutorial write a recording and send a label."""
    make, label = re.findall(r"```python\n(.*?)```", text_of(DOCS / "tutorials" / "first-alarm.md"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for program in (make, label):
        exec(compile(program, "first-alarm.md", "exec"), {})
    assert len((tmp_path / "pump.csv").read_text().splitlines()) == 1 + 5 * 24 * 60
    assert capsys.readouterr().out == ""
    reader = open_reader(load_settings(None, (), {}))
    ((_, value),) = reader.read("sensor-labels")
    reader.close()
    assert json.loads(value)["start"].startswith("2026-11-01T13:27:00")
