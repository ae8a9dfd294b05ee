"""The settings tree as a flat list of dotted keys, and the names each key has in the sources."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel, SecretStr

from stream_ad.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic.fields import FieldInfo

PREFIX = "STREAM_AD_"
DELIMITER = "__"
MASK = "**********"
_ALIKE = 0.6  # likeness from which a key is suggested; difflib's own cutoff


@dataclass(frozen=True, slots=True)
class Key:
    """A setting, or a section of settings."""

    name: str  # "broker.kind"
    field: FieldInfo
    is_section: bool

    @property
    def variable(self) -> str:
        """Return the name of its environment variable."""
        return PREFIX + self.name.replace(".", DELIMITER).upper()

    @property
    def takes_yaml(self) -> bool:
        """Return whether a text for it may be a YAML list or mapping."""
        annotation = self.field.annotation
        return self.is_section or any(get_origin(kind) is tuple for kind in (annotation, *get_args(annotation)))

    @property
    def holds_sections(self) -> bool:
        """Return whether it is a list of sections."""
        kind = (*get_args(self.field.annotation), None)[0]
        return isinstance(kind, type) and issubclass(kind, BaseModel)

    @property
    def is_secret(self) -> bool:
        """Return whether its value is never shown."""
        annotation = self.field.annotation
        return SecretStr in (annotation, *get_args(annotation))


def _walk(model: type[BaseModel], prefix: str) -> Iterator[Key]:
    """Yield settings before sections, and a model's own before those it inherits."""
    keys = [Key(prefix + name, field, _section(field) is not None) for name, field in model.model_fields.items()]
    own = model.__annotations__
    for key in sorted(keys, key=lambda key: (key.is_section, key.name.removeprefix(prefix) not in own)):
        yield key
        if (section := _section(key.field)) is not None:
            yield from _walk(section, f"{key.name}.")


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


@cache
def all_keys() -> Mapping[str, Key]:
    """Return every key of the tree by name, sections included, each section before its keys."""
    return {key.name: key for key in _walk(Settings, "")}


def leaf_values(settings: BaseModel) -> Iterator[tuple[Key, Any]]:
    """Yield every setting that is not a section with its value, in the order of ``all_keys``."""
    for key in all_keys().values():
        if not key.is_section:
            value: Any = settings
            for part in key.name.split("."):
                value = getattr(value, part)
            yield key, value


def closest_key(name: str) -> Key | None:
    """Return the key most likely meant by an unknown one, or None where nothing resembles it.

    The part after the last dot counts most: "broker.pasword" means "broker.security.password", not "broker.path".
    A single underscore between section and name is the most common slip.
    """
    meant = closest(name, all_keys())
    return None if meant is None else all_keys()[meant]


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """Return which of the candidates was most likely meant by a name that is none of them, or None."""
    best = max(candidates, key=lambda candidate: _likeness(name, candidate), default=None)
    return best if best is not None and _likeness(name, best) >= _ALIKE else None


def _likeness(name: str, key: str) -> float:
    """Return the likeness of two keys, from 0 to 1."""
    if name.replace(".", "_") == key.replace(".", "_"):
        return 1.0
    (section, _, leaf), (key_section, _, key_leaf) = name.rpartition("."), key.rpartition(".")
    # Squared, so that the right name in the wrong section beats a vaguely similar one in the right section.
    leaves = SequenceMatcher(None, leaf, key_leaf).ratio() ** 2
    return (2 * leaves + SequenceMatcher(None, section, key_section).ratio()) / 3
