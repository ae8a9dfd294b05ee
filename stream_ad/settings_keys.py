"""The settings tree as a flat list of dotted keys, and the names each key has in the sources."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, SecretStr

from stream_ad.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic.fields import FieldInfo

PREFIX = "STREAM_AD_"
DELIMITER = "__"
MASK = "**********"


@dataclass(frozen=True, slots=True)
class Key:
    """One setting, or one section of settings."""

    name: str  # "broker.kind"
    field: FieldInfo
    is_section: bool

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.replace(".", DELIMITER).upper()

    @property
    def is_secret(self) -> bool:
        annotation = self.field.annotation
        return SecretStr in (annotation, *get_args(annotation))


def _walk(model: type[BaseModel], prefix: str) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        section = isinstance(kind, type) and issubclass(kind, BaseModel)
        yield Key(prefix + name, field, section)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _walk(kind, f"{prefix}{name}.")


@cache
def all_keys() -> Mapping[str, Key]:
    """Every key of the tree, sections included, in the order of the tree."""
    return {key.name: key for key in _walk(Settings, "")}


def leaf_values(settings: BaseModel) -> Iterator[tuple[Key, Any]]:
    """Every setting that is no section, with its value, in the order of the tree."""
    for key in all_keys().values():
        if not key.is_section:
            value: Any = settings
            for part in key.name.split("."):
                value = getattr(value, part)
            yield key, value


def closest_key(name: str) -> Key | None:
    """The key that was most likely meant by an unknown one."""
    keys = all_keys()
    same_leaf = [key for key in keys if key.rpartition(".")[2] == name.rpartition(".")[2]]
    if len(same_leaf) == 1:
        return keys[same_leaf[0]]
    # Keys of the same depth first: «topic.events» means «topics.events».
    level = [key for key in keys if key.count(".") == name.count(".")]
    close = get_close_matches(name, level, n=1) or get_close_matches(name, keys, n=1)
    return keys[close[0]] if close else None
