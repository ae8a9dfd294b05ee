"""Promises of the image's recipe that can be checked without a docker engine; `make deploy-check` checks the image."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
FINAL = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]


@pytest.fixture(scope="module")
def cpu_only():
    """Return the script that leaves out what only a GPU needs, as a module."""
    spec = importlib.util.spec_from_file_location("cpu_only", ROOT / "deploy" / "image" / "cpu_only.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report(tmp_path, *names):
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"install": [{"metadata": {"name": name, "version": "1"}} for name in names]}))
    return path


def test_a_cpu_image_leaves_out_what_only_a_gpu_needs(cpu_only, tmp_path):
    """For the CPU all of NVIDIA's libraries are left out, except the small runtime that torch calls when loaded."""
    everything = report(tmp_path, "stream-ad", "torch", "numpy", "triton", "cuda-toolkit", "nvidia-cudnn-cu13",
                        "nvidia-cuda-runtime", "cuda-bindings")  # fmt: skip
    assert cpu_only.pins(everything, "cpu") == ["torch==1", "numpy==1", "nvidia-cuda-runtime==1"]


def test_a_gpu_image_leaves_out_nothing(cpu_only, tmp_path):
    """For CUDA everything that pip would install is installed."""
    everything = report(tmp_path, "stream-ad", "torch", "triton", "nvidia-cudnn-cu13")
    assert cpu_only.pins(everything, "cuda") == ["torch==1", "triton==1", "nvidia-cudnn-cu13==1"]


def test_it_builds_where_no_registry_can_be_reached():
    """No syntax line and no linked copies, which would make BuildKit fetch a frontend."""
    assert "# syntax" not in DOCKERFILE
    assert "--link" not in DOCKERFILE


def test_it_has_several_stages_and_pins_nothing_itself():
    """Build tools stay in their own stage, and the base image comes only from .env."""
    assert DOCKERFILE.count("\nFROM ") == 2
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${PYTHON_IMAGE}"}
    assert "binutils" not in FINAL


def test_the_final_image_is_for_running_only():
    """The image has user 10001, no pip, a health check by the program, and labels with version and revision."""
    assert "\nUSER 10001:10001\n" in FINAL
    assert "pip uninstall" in FINAL
    assert 'CMD ["stream-ad", "health"]' in FINAL
    assert "org.opencontainers.image.version" in FINAL
    assert "org.opencontainers.image.revision" in FINAL


def test_the_context_is_small():
    """Only what the image is made of is sent to the engine: everything else is ignored first."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == {
        "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "stream_ad", "deploy/image",
    }  # fmt: skip
