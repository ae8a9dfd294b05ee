"""The settings in force, as YAML that can be read back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pydantic import SecretStr
from pydantic_core import to_jsonable_python

from stream_ad.settings.keys import MASK, all_keys, leaf_values

if TYPE_CHECKING:
    from stream_ad.settings.loader import Resolved


def as_yaml(resolved: Resolved) -> str:
    """Return every key with its value; where a value is not the default, a comment says where it was set."""
    values = dict(leaf_values(resolved.settings))
    lines = []
    for key in all_keys().values():
        indent = "  " * key.name.count(".")
        leaf = key.name.rpartition(".")[2]
        if key.is_section:
            lines.append(f"{indent}{leaf}:")
            continue
        value = values[key]
        text = json.dumps(MASK if isinstance(value, SecretStr) else to_jsonable_python(value), ensure_ascii=False)
        origin = resolved.origins.get(key.name)
        lines.append(f"{indent}{leaf}: {text}{f'  # {origin}' if origin else ''}")
    return "\n".join(lines) + "\n"
