"""Where settings come from: ``--set``, environment, YAML file, secret files.

Each layer gives its values as a nested dictionary and remembers where each was written, so that an
error can point at the place. The order of the layers is in ``settings_load``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings.sources.utils import parse_env_vars

from stream_ad.settings import Settings
from stream_ad.settings.keys import DELIMITER, PREFIX, Key, all_keys, closest_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic.fields import FieldInfo

CONFIG_VARIABLE = f"{PREFIX}CONFIG"
SECRETS_DIR_VARIABLE = f"{PREFIX}SECRETS_DIR"
DEFAULT_SECRETS_DIR = Path("/run/secrets")

# Kubernetes puts these into every pod beside a Service that is called stream-ad; nobody wrote them.
_SERVICE_LINK = re.compile(rf"{PREFIX}(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")


@dataclass(slots=True)
class SettingsSource:
    """What one source says."""

    values: dict[str, Any] = field(default_factory=dict)
    """By section, nested as in the tree."""
    places: dict[str, str] = field(default_factory=dict)
    """Where each dotted key is written; a section that is given as a whole has one entry, "" stands for the source."""
    problems: list[str] = field(default_factory=list)
    """What is wrong with the source itself, whatever the values mean."""

    def where(self, key: str) -> str:
        """The place that sets the key, or "" where this source does not set it."""
        node: Any = self.values
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                return ""
            node = node[part]
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return self.places.get(key, "")


class Sourced(Settings, BaseSettings):
    """The tree as pydantic-settings walks it; ``load_settings`` turns it into a plain Settings."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter=DELIMITER, env_parse_none_str="null")


class _Strings(EnvSettingsSource):
    """pydantic-settings' reading of flat names, with YAML instead of JSON for lists and sections."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        super().__init__(Sourced)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return parse_env_vars(self._texts, parse_none_str=self.env_parse_none_str)

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ARG002 (inherited)
        try:
            decoded = yaml.safe_load(value)
        except yaml.YAMLError:
            return value  # «*» and other texts that are no YAML
        return decoded if isinstance(decoded, list) or _is_section(decoded) else value


def _is_section(decoded: Any) -> bool:
    """Whether it is a mapping whose names are texts, down to the last: of others pydantic-settings knows nothing."""
    return isinstance(decoded, dict) and all(
        isinstance(name, str) and (not isinstance(node, dict) or _is_section(node)) for name, node in decoded.items()
    )


class _FlatValues:
    """Collects texts by key; ``--set``, environment and secret files are all read this way."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._places: dict[str, str] = {}
        self.problems: list[str] = []

    def add(self, key: Key, text: str, place: str) -> None:
        if text.startswith(("[", "{")) and key.takes_yaml:
            try:
                yaml.safe_load(text)
            except yaml.YAMLError:
                self.problems.append(f"{place}: the list or mapping is not valid YAML")
                return
        self._texts[key.variable] = text
        self._places[key.name] = place

    def add_file(self, key: Key, path: Path, place: str) -> None:
        try:
            self.add(key, path.read_text(encoding="utf-8").strip(), place)
        except OSError as error:
            self.problems.append(f"{place}: {path} cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            self.problems.append(f"{place}: {path} is not UTF-8 text")

    def layer(self) -> SettingsSource:
        return SettingsSource(_Strings(self._texts)(), self._places, self.problems)


def unknown(name: str, spelled: Callable[[Key], str]) -> str:
    """What to say about an unknown dotted key; ``spelled`` says how its source writes a key."""
    meant = closest_key(name)
    return f"there is no such setting{f'; did you mean {spelled(meant)}?' if meant else ''}"


def overrides_layer(overrides: Iterable[str]) -> SettingsSource:
    """``--set key=value``; the last one of a key counts."""
    texts = _FlatValues()
    for override in overrides:
        name, equals, text = override.partition("=")
        name = name.strip()
        place = f"--set {name}"
        if not equals:
            texts.problems.append(f"{place}: the value is missing; write --set {name or 'KEY'}=VALUE")
        elif name not in all_keys():
            texts.problems.append(f"{place}: {unknown(name, lambda key: key.name)}")
        else:
            texts.add(all_keys()[name], text, place)
    return texts.layer()


def environment_layers(environ: Mapping[str, str]) -> tuple[SettingsSource, SettingsSource]:
    """``STREAM_AD_*`` variables, and the secret files that variables or a directory name.

    An empty variable counts as not set: that is how Compose passes on what nobody gave.
    """
    keys = {key.variable: key for key in all_keys().values()}
    texts, files = _FlatValues(), _FlatValues()
    _read_directory(files, keys, environ.get(SECRETS_DIR_VARIABLE))
    for name, text in sorted(environ.items()):
        variable = name.upper()
        if not text or not variable.startswith(PREFIX) or variable in {CONFIG_VARIABLE, SECRETS_DIR_VARIABLE}:
            continue
        place = f"environment {name}"
        # Ends like certificate_file are settings of their own; only then does _FILE name a file that holds the value.
        target = variable if variable in keys else re.sub(r"_?_FILE$", "", variable)
        if variable in keys:
            texts.add(keys[variable], text, place)
        elif target in keys and environ.get(target):
            texts.problems.append(f"{place}: {target} is set as well; give one of the two")
        elif target in keys:
            files.add_file(keys[target], Path(text), place)
        elif not _SERVICE_LINK.fullmatch(variable):
            texts.problems.append(f"{place}: {unknown(_dotted(variable), lambda key: key.variable)}")
    return texts.layer(), files.layer()


def _read_directory(files: _FlatValues, keys: Mapping[str, Key], named: str | None) -> None:
    """Files such as ``stream_ad_broker__security__password``; others in the directory are somebody else's."""
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
