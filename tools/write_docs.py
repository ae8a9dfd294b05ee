"""Write the generated parts of docs/: settings, metrics, commands, exit codes, import graph (`make docs`).

In each page they are between two comments; the rest is written by hand. A test compares the pages with the code.
"""

from __future__ import annotations

import json
from collections import defaultdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stream_ad import errors
from stream_ad.cli.app import app
from stream_ad.cli.exit_codes import EXIT_CODES
from stream_ad.records.columns import ShardStatus
from stream_ad.settings import Settings
from stream_ad.settings.keys import all_keys, leaf_values
from stream_ad.telemetry.collectors import ShardView
from stream_ad.telemetry.metrics import SEVERITIES, Metrics
from tools.import_layers import mermaid, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import Metric

DOCS = Path(__file__).resolve().parent.parent / "docs"
OPEN_LABELS = {"shard", "class", "version", "python", "application_id", "broker", "models", "device", "le"}
"""Metric labels whose values come from the stream, the machine or the settings."""

BEGIN, END = "<!-- generated -->", "<!-- end of generated -->"


def pages() -> dict[Path, str]:
    """Return every page with generated parts, as it should be, by its path."""
    parts = {
        "reference/settings.md": settings_tables(),
        "reference/metrics.md": metrics_table(),
        "reference/commands.md": commands(),
        "reference/exit-codes.md": exit_codes_table(),
        "explanation/architecture.md": import_graph(),
    }
    return {DOCS / name: _with(DOCS / name, part) for name, part in parts.items()}


def _with(path: Path, table: str) -> str:
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


def settings_tables() -> str:
    """Return a table for each section of the settings."""
    defaults = dict(leaf_values(Settings()))
    schema = Settings.model_json_schema()
    tables: dict[str, list[str]] = defaultdict(list)
    for key in all_keys().values():
        if key.is_section:
            continue
        section = key.name.rpartition(".")[0]
        default = defaults[key]
        shown = "" if default is None else f"`{default if isinstance(default, str) else json.dumps(default)}`"
        allowed = _allowed(_property(schema, key.name), schema)
        tables[section].append(f"| `{key.name}` | {shown} | {allowed} | {_cell(key.field.description or '')} |")
    lines = []
    for section, rows in tables.items():
        title = f"`{section}`" if section else "General"
        lines += [f"## {title}", "", "| setting | default | values | what it does |", "|---|---|---|---|", *rows, ""]
    return "\n".join(lines).rstrip()


def _property(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    node: Any = schema
    for part in name.split("."):
        node = _resolved(node, schema)["properties"][part]
    return _resolved(node, schema)


def _resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref", "")
    return {**node, **schema["$defs"][reference.rpartition("/")[2]]} if reference else dict(node)


def _allowed(node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return the values that a property takes, in words."""
    if "anyOf" in node:
        return " or ".join(_allowed(_resolved(option, schema), schema) for option in node["anyOf"])
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    if node["type"] == "array":
        return "list of mappings" if "$ref" in node["items"] else "list of texts"
    words = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "`true`, `false`",
        "null": "none",
    }
    bounds = {"exclusiveMinimum": "> {}", "minimum": "≥ {}", "exclusiveMaximum": "< {}", "maximum": "≤ {}",
              "multipleOf": "multiple of {}", "pattern": "`{}`"}  # fmt: skip
    word = "secret" if node.get("writeOnly") else words[node["type"]]
    return ", ".join([word, *(_cell(form.format(_short(node[name]))) for name, form in bounds.items() if name in node)])


def _short(bound: float | str) -> float | str:
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def metrics_table() -> str:
    """Return a row for each metric, in the order of registration."""
    metrics = Metrics(Settings())
    status = ShardStatus(
        sensors=0, warming_sensors=0, alarmed_sensors=0, open_incidents=dict.fromkeys(SEVERITIES, 0), pending_events=0,
        watermark_ns=0, model_version="", class_importance={"": 0.0}, miss_rate={"": 0.0}, threshold_median=0.0,
        state_bytes=0,
    )  # fmt: skip
    metrics.show({0: ShardView(status=status)})
    families = [family for family in metrics.registry.collect() if family.name.startswith("stream_ad_")]
    rows = (f"| `{_full_name(f)}` | {f.type} | {'; '.join(_labels(f))} | {_cell(f.documentation)} |" for f in families)
    return "\n".join(["| metric | type | labels | what it says |", "|---|---|---|---|", *rows])


def _full_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def _labels(family: Metric) -> Iterator[str]:
    values: dict[str, dict[str, None]] = defaultdict(dict)  # a set that keeps its order
    for sample in family.samples:
        for label, value in sample.labels.items():
            values[label][value] = None
    for label, listed in values.items():
        if label not in OPEN_LABELS:
            yield f"`{label}`: {', '.join(listed)}"
        elif label != "le":
            yield f"`{label}`"


def commands() -> str:
    """Return a section for each command: usage, what it does, arguments and options."""
    return "\n\n".join(_command_sections(typer.main.get_command(app), ["stream-ad"]))


def _command_sections(command: Any, words: list[str]) -> Iterator[str]:
    name = " ".join(words)
    if len(words) > 1:
        arguments = [_argument(parameter) for parameter in command.params if parameter.param_type_name == "argument"]
        kind = "COMMAND" if hasattr(command, "commands") else "[OPTIONS]"
        lines = [f"## {name}", "", f"`{' '.join([name, kind, *arguments])}`", "", _paragraphs(command.help)]
        lines += _parameters(command.params)
        yield "\n".join(lines)
    for inner in getattr(command, "commands", {}).values():
        yield from _command_sections(inner, [*words, inner.name])


def _argument(parameter: Any) -> str:
    return f"{parameter.metavar or parameter.human_readable_name}{'...' if parameter.nargs == -1 else ''}"


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _parameters(parameters: list[Any]) -> Iterator[str]:
    rows = []
    for parameter in parameters:
        if getattr(parameter, "hidden", False):
            continue
        if parameter.param_type_name == "argument":
            name, default = f"`{_argument(parameter)}`", ""
        else:
            flags = ", ".join(parameter.opts + parameter.secondary_opts)
            name = f"`{flags}`" if parameter.is_flag else f"`{flags} {parameter.metavar or _values(parameter)}`"
            default = "" if parameter.default is None or parameter.is_flag else f"`{parameter.default}`"
        rows.append(f"| {_cell(name)} | {default} | {_cell(parameter.help or '')} |")
    if rows:
        yield from ["", "| argument or option | default | what it does |", "|---|---|---|", *rows]


def _values(parameter: Any) -> str:
    """Return the placeholder for the value of an option without a metavar."""
    kind = parameter.type_descriptor.annotation
    if issubclass(kind, Enum):
        return "|".join(str(choice.value) for choice in kind)
    return "NUMBER" if issubclass(kind, int | float) else "TEXT"


def import_graph() -> str:
    """Return every import between packages as text, and the essential ones as a diagram."""
    return f"""```text
{text()}
```

<!-- not on the site -->
As a diagram, without the arrows that follow from others:

```mermaid
{mermaid()}
```
<!-- end of not on the site -->"""


def exit_codes_table() -> str:
    """Return a row for each exit code, with the exceptions that exit with it."""
    rows = ["| code | meaning | errors |", "|---:|---|---|"]
    for code, meaning in EXIT_CODES.items():
        names = ", ".join(f"`{kind.__name__}`" for kind in error_kinds() if kind.exit_code == code)
        rows.append(f"| {code} | {meaning} | {names} |")
    return "\n".join(rows)


def error_kinds() -> list[type[errors.StreamADError]]:
    """Return every exception of stream_ad.errors, in the order of the file."""
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.StreamADError)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    for path, page in pages().items():
        path.write_text(page, encoding="utf-8")
