"""Make a CUDA build of torch load and run on the CPU without NVIDIA's libraries (some 4 GB).

    python cpu_only.py cpu REPORT.json      pins what to install, from `pip install --dry-run --report`
    python cpu_only.py cuda REPORT.json     the same with everything that a GPU needs
    python cpu_only.py stand-in VENV        puts one small library in the place of the missing ones

The plain package index has torch for Linux on x86-64 only as a CUDA build, which the loader refuses to
open without cuBLAS, cuDNN and the others, though nothing of them is ever called where there is no GPU.
The stand-in exports what torch's libraries ask of them; every function in it is an illegal
instruction, so that a call would end the process rather than compute something wrong. Only the CUDA runtime
itself (0.8 MB) is the real one: it is called while torch is loaded, and finds no device. With a
CPU build of torch nothing is missing, and nothing is done. Needs `as`, `ld`, `ldd` and `readelf`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

GPU_ONLY = re.compile(r"(nvidia|cuda|triton)(-|$)(?!cuda-runtime)", re.IGNORECASE)
VERSION = re.compile(r"\bName: (\S+)")
UNRESOLVED = re.compile(r"undefined symbol: ([^\s,@]+)")
UNDEFINED = re.compile(r"\sUND\s+([^@\s]+)(?:@(\S+))?")
DRIVER = "libcuda.so.1"  # looked for at run time only; a stand-in for it would be taken for a driver
STAND_IN = "libstreamad_nogpu.so"


def pins(report: Path, torch: str) -> list[str]:
    """Return pins of all that pip would install except the project; for ``cpu`` without what only a GPU needs."""
    packages = [item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]
    return [
        f"{item['name']}=={item['version']}"
        for item in packages
        if item["name"] != "stream-ad" and not (torch == "cpu" and GPU_ONLY.match(item["name"]))
    ]


def stand_in(libraries: Path) -> list[str]:
    """Write the stand-in beside torch's libraries; return the names of the libraries that it replaces."""
    ours = sorted(libraries.glob("lib*.so"))
    missing = {line.split()[0] for path in ours for line in _run("ldd", path) if "not found" in line} - {DRIVER}
    if missing:
        _link(_asked_of(missing, ours), libraries / STAND_IN)
        for name in missing:
            (libraries / name).symlink_to(STAND_IN)
    return sorted(missing)


def _asked_of(missing: set[str], paths: list[Path]) -> dict[str, set[str]]:
    """Return undefined functions by the symbol version that is asked for; "" without a version."""
    asked: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        needs = "\n".join(_run("readelf", "-W", "-V", path)).split(" File: ")[1:]  # one part for each library
        versions = {version for need in needs if need.split()[0] in missing for version in VERSION.findall(need)}
        unresolved = set(UNRESOLVED.findall("\n".join(_run("ldd", "-r", path))))
        for name, version in UNDEFINED.findall("\n".join(_run("readelf", "-W", "--dyn-syms", path))):
            if version in versions:
                asked[version].add(name)
            elif not version and name in unresolved and not name.startswith(("Py", "_Py")):
                asked[""].add(name)
    return asked


def _link(asked: dict[str, set[str]], target: Path) -> None:
    names = sorted(set().union(*asked.values()))
    code = "".join(f".globl {name}\n.type {name}, @function\n{name}: ud2\n" for name in names)
    versions = "".join(
        f'"{version}" {{ {"; ".join(sorted(functions))}; }};\n' for version, functions in asked.items() if version
    )
    with tempfile.TemporaryDirectory() as folder:
        source, script, binary = (Path(folder, name) for name in ("a.s", "a.map", "a.o"))
        source.write_text(f'.section .note.GNU-stack,"",@progbits\n.text\n{code}', encoding="ascii")
        script.write_text(versions, encoding="ascii")
        _run("as", "-o", binary, source)
        _run("ld", "-shared", *(["--version-script", script] if versions else []), "-o", target, binary)


def _run(*command: object) -> list[str]:
    return subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, text=True
    ).stdout.splitlines()


if __name__ == "__main__":
    action, path = sys.argv[1], Path(sys.argv[2])
    if action in {"cpu", "cuda"}:
        print("\n".join(pins(path, action)))
    elif action == "stand-in":
        (torch_libraries,) = path.glob("lib/python3*/site-packages/torch/lib")
        print("stands for:", ", ".join(stand_in(torch_libraries)) or "nothing, torch is complete")
    else:
        sys.exit(f"TORCH is '{action}'; it must be cpu or cuda.")
