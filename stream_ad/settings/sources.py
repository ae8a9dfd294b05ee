"""Sources of settings: ``--set``, environment, YAML file, secret files.

Each source gives its values as a nested dictionary and remembers where each was written, so that an error can point
at it. ``stream_ad.settings.loader`` merges them in order of precedence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stream_ad.detector.config import REPLACED
from stream_ad.settings.keys import DELIMITER, PREFIX, Key, all_keys, closest_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

CONFIG_VARIABLE = f"{PREFIX}CONFIG"
SECRETS_DIR_VARIABLE = f"{PREFIX}SECRETS_DIR"
DEFAULT_SECRETS_DIR = Path("/run/secrets")

# Kubernetes puts these into every pod beside a Service that is called stream-ad; nobody wrote them.
_SERVICE_LINK = re.compile(rf"{PREFIX}(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")
_YAML_ERRORS = (yaml.YAMLError, ValueError)
"""ValueError: a date or number that has the form of one and is none, such as 2001-99-99."""


@dataclass(slots=True)
class SettingsSource:
    """What one source says."""

    values: dict[str, Any] = field(default_factory=dict)
    """Nested by section, as the tree of settings is."""
    provenance: dict[str, str] = field(default_factory=dict)
    """Location of each dotted key; a section given as a whole has one entry, "" stands for the source itself."""
    problems: list[str] = field(default_factory=list)
    """What is wrong with the source itself, regardless of its values."""

    def location(self, key: str) -> str:
        """Return where this source sets the key, or "" where it does not set it."""
        node: Any = self.values
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                return ""
            node = node[part]
        while key and key not in self.provenance:
            key = key.rpartition(".")[0]
        return self.provenance.get(key, "")


class _FlatValues:
    """Collects texts by key; ``--set``, environment and secret files are all read this way."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._provenance: dict[str, str] = {}
        self.problems: list[str] = []

    def add(self, key: Key, text: str, location: str) -> None:
        """Set a key; the last text of a key counts."""
        try:
            self._values[key.name] = _value(key, text)
        except _YAML_ERRORS:
            self.problems.append(f"{location}: the list or mapping is not valid YAML")
        else:
            self._provenance[key.name] = location

    def add_file(self, key: Key, path: Path, location: str) -> None:
        """Set a key to the content of a file, without the white space around it."""
        try:
            self.add(key, path.read_text(encoding="utf-8").strip(), location)
        except OSError as error:
            self.problems.append(f"{location}: {path} cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            self.problems.append(f"{location}: {path} is not UTF-8 text")

    def source(self) -> SettingsSource:
        """Return the values nested by section."""
        values: dict[str, Any] = {}
        for name in all_keys():  # each section before its keys: a single key takes precedence over its section
            if name in self._values:
                _set(values, name.split("."), self._values[name])
        return SettingsSource(values, self._provenance, self.problems)


def _value(key: Key, text: str) -> Any:
    """Return a text, what YAML reads in it where a list or mapping may stand, or None for "null".

    Raises:
        YAMLError, ValueError: It begins like a list or mapping, and is none.
    """
    if text == "null":
        return None
    if not key.takes_yaml:
        return text
    try:
        decoded = yaml.safe_load(text)
    except _YAML_ERRORS:
        if text.startswith(("[", "{")):
            raise
        return text  # "*" and other texts that are not YAML
    return decoded if isinstance(decoded, list | dict) else text


def _set(values: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a nested value, unless a section on its path is set to something that is no section."""
    *sections, leaf = path
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            return  # validation refuses that section
    values[leaf] = value


def unknown(name: str, spell: Callable[[Key], str]) -> str:
    """Return what to say about an unknown dotted key; ``spell`` writes a key the way its source does."""
    for replaced in (name, name.partition(".")[0]):
        if replaced in REPLACED:
            return REPLACED[replaced]
    meant = closest_key(name)
    return f"there is no such setting{f'; did you mean {spell(meant)}?' if meant else ''}"


def overrides_source(overrides: Iterable[str]) -> SettingsSource:
    """Read ``--set key=value`` texts; the last one of a key counts."""
    texts = _FlatValues()
    for override in overrides:
        name, equals, text = override.partition("=")
        name = name.strip()
        location = f"--set {name}"
        if not equals:
            texts.problems.append(f"{location}: the value is missing; write --set {name or 'KEY'}=VALUE")
        elif name not in all_keys():
            texts.problems.append(f"{location}: {unknown(name, lambda key: key.name)}")
        else:
            texts.add(all_keys()[name], text, location)
    return texts.source()


def environment_sources(environ: Mapping[str, str]) -> tuple[SettingsSource, SettingsSource]:
    """Read ``STREAM_AD_*`` variables, and the secret files that variables or a directory name.

    An empty variable counts as not set: Compose passes on variables that nobody set as empty texts.
    """
    keys = {key.variable: key for key in all_keys().values()}
    texts, files = _FlatValues(), _FlatValues()
    _read_directory(files, keys, environ.get(SECRETS_DIR_VARIABLE))
    for name, text in sorted(environ.items()):
        variable = name.upper()
        if not text or not variable.startswith(PREFIX) or variable in {CONFIG_VARIABLE, SECRETS_DIR_VARIABLE}:
            continue
        location = f"environment {name}"
        # certificate_file and its like are settings of their own; otherwise _FILE names a file that holds the value.
        target = variable if variable in keys else re.sub(r"_?_FILE$", "", variable)
        if variable in keys:
            texts.add(keys[variable], text, location)
        elif target in keys and environ.get(target):
            texts.problems.append(f"{location}: {target} is set as well; set only one of the two")
        elif target in keys:
            files.add_file(keys[target], Path(text), location)
        elif not _SERVICE_LINK.fullmatch(variable):
            texts.problems.append(f"{location}: {unknown(_dotted(variable), lambda key: key.variable)}")
    return texts.source(), files.source()


def _read_directory(files: _FlatValues, keys: Mapping[str, Key], named: str | None) -> None:
    """Read files such as ``stream_ad_broker__security__password``; other files in the directory are not ours."""
    folder = Path(named or DEFAULT_SECRETS_DIR)
    if not folder.is_dir():
        if named:
            files.problems.append(f"environment {SECRETS_DIR_VARIABLE}: there is no directory {folder}")
        return
    for path in sorted(folder.iterdir()):
        variable = path.name.upper()
        if variable in keys:
            files.add_file(keys[variable], path, f"secret file {path}")
        elif variable.startswith(PREFIX):
            hint = unknown(_dotted(variable), lambda key: key.variable.lower())
            files.problems.append(f"secret file {path}: {hint}")


def _dotted(variable: str) -> str:
    return variable.removeprefix(PREFIX).replace(DELIMITER, ".").lower()


def yaml_source(path: Path) -> SettingsSource:
    """Read one YAML document whose top level is a mapping, with line and column of every key.

    An empty file sets nothing.
    """
    source = SettingsSource(provenance={"": str(path)})
    try:
        loader = yaml.SafeLoader(path.read_bytes())
        node = loader.get_single_node()
        if isinstance(node, yaml.MappingNode):
            _remember(source, path, node, "")
            source.values = {str(key): value for key, value in loader.construct_document(node).items()}
        elif node is not None:
            source.problems.append(
                f'{_mark(path, node.start_mark)}: settings must be lines of "key: value" in sections'
            )
    except OSError as error:
        source.problems.append(f"{path}: cannot be read: {error.strerror}")
    except yaml.MarkedYAMLError as error:
        location = _mark(path, error.problem_mark) if error.problem_mark else str(path)
        source.problems.append(f"{location}: not valid YAML: {error.problem or error.context}")
    except _YAML_ERRORS as error:  # bytes that are not text, among others; such errors carry no mark
        source.problems.append(f"{path}: not valid YAML: {str(error).splitlines()[0]}")
    return source


def _mark(path: Path, mark: yaml.Mark) -> str:
    return f"{path}:{mark.line + 1}:{mark.column + 1}"


def _remember(source: SettingsSource, path: Path, node: yaml.MappingNode, prefix: str) -> None:
    """Note the location of each key; of two equal keys YAML itself would silently take the last."""
    for key_node, value_node in node.value:
        key = f"{prefix}{key_node.value}"
        location = _mark(path, key_node.start_mark)
        if key in source.provenance:
            source.problems.append(f"{location}: {key} is already set at {source.provenance[key]}")
        source.provenance[key] = location
        if isinstance(value_node, yaml.MappingNode):
            _remember(source, path, value_node, f"{key}.")
