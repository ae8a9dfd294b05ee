"""Promises of the files around the code: what they name exists, and they agree with each other."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from stream_ad import __version__

ROOT = Path(__file__).resolve().parent.parent
YAML = sorted([*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"])
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROSE = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "schemas/README.md")]
REGISTRIES = re.compile(
    r"pypi\.(org|python)|pythonhosted|registry\.npmjs|docker\.io|ghcr\.io|repo\.?1?\.maven", re.IGNORECASE
)


def targets():
    """What can be made."""
    text = (ROOT / "Makefile").read_text() + (ROOT / "deploy" / "deploy.mk").read_text()
    return set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_can_be_read(path):
    """Every file that the forge or a tool reads as YAML is a mapping."""
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_make_what_there_is(path):
    """Steps name targets and tests that exist, and every action is pinned to a version."""
    for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
        for step in job["steps"]:
            assert re.fullmatch(r"[a-z-]+/[a-z-]+@(v\d+|[0-9a-f]{40})", step.get("uses", "a/b@v1"))
            for words in re.findall(r"make ([a-z -]+)", step.get("run", "")):
                assert set(words.split()) <= targets()
            for name in re.findall(r"\btests/[\w/.]+", step.get("run", "")):
                assert (ROOT / name).exists()
        for row in job.get("strategy", {}).get("matrix", {}).get("include", ()):
            assert row["target"] in targets()


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_pages_name_what_there_is(path):
    """Targets of make, modules, files and links of the pages for contributors exist."""
    text = path.read_text(encoding="utf-8")
    made = re.findall(r"(?:^|`)make ([a-z -]+?)(?:`|\s{2,}|$)", text, re.MULTILINE)
    assert {word for words in made for word in words.split()} <= targets()
    for module in re.findall(r"python -m (tools\.\w+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
    for name in re.findall(r"`((?:stream_ad|tests|tools|deploy|schemas)/[\w/.-]*)`", text):
        assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\(([^):]+)\)", text):
        assert (path.parent / link).exists(), link


def test_the_citation_is_of_this_version():
    """CITATION.cff, the tag of the image and the package say the same version."""
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\nWORKER_IMAGE=stream-ad:{__version__}\n" in (ROOT / ".env").read_text()


def test_lowest_versions_are_those_that_are_allowed():
    """The constraints of the lowest versions pin every direct dependency to the bound in pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text()
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints-lowest.txt").read_text(), re.MULTILINE))
    direct = text.split("dependencies = [", 1)[1].split("\n]", 1)[0]
    bounds = dict(re.findall(r'"([\w-]+)(?:\[[^]]*\])?>=([\d.]+)', direct))
    assert len(bounds) > 10
    for name, bound in bounds.items():
        pinned = pins[name.lower()]
        assert (pinned + ".0.0").startswith(f"{bound}.") or pinned == bound, name


@pytest.mark.parametrize("message", ["Short", "x" * 72])
def test_subjects_that_fit(message, tmp_path):
    """The hook lets a subject of 72 characters pass, and one of 73 not."""
    hooks = {
        hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    }
    path = tmp_path / "message"
    command = f"{hooks['subject']['entry']} {path}"
    path.write_text(f"{message}\n\nA body that may be as long as it likes, {'y' * 99}.\n")
    assert subprocess.run(["bash", "-c", command], check=False).returncode == 0
    path.write_text(f"{'x' * 73}\n")
    assert subprocess.run(["bash", "-c", command], capture_output=True, check=False).returncode == 1


def test_no_file_names_a_registry():
    """Where packages come from is for whoever installs them to say."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix not in {".png", ".gz"} and path != Path(__file__):
            assert not REGISTRIES.search(path.read_text(encoding="utf-8")), name
