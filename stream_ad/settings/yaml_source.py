"""The YAML file as a layer of settings that knows the line and column of every key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from stream_ad.settings.sources import SettingsSource

if TYPE_CHECKING:
    from pathlib import Path


def yaml_layer(path: Path) -> SettingsSource:
    """One YAML document whose top is a mapping; an empty file sets nothing."""
    layer = SettingsSource(places={"": str(path)})
    try:
        loader = yaml.SafeLoader(path.read_bytes())
        node = loader.get_single_node()
        if isinstance(node, yaml.MappingNode):
            _remember(layer, path, node, "")
            layer.values = {str(key): value for key, value in loader.construct_document(node).items()}
        elif node is not None:
            layer.problems.append(f"{_place(path, node.start_mark)}: settings are lines of «key: value» in sections")
    except OSError as error:
        layer.problems.append(f"{path}: cannot be read: {error.strerror}")
    except yaml.MarkedYAMLError as error:
        place = _place(path, error.problem_mark) if error.problem_mark else path
        layer.problems.append(f"{place}: not valid YAML: {error.problem or error.context}")
    except (yaml.YAMLError, UnicodeDecodeError) as error:  # bytes that are no text; such errors carry no mark
        layer.problems.append(f"{path}: not valid YAML: {str(error).splitlines()[0]}")
    return layer


def _place(path: Path, mark: yaml.Mark) -> str:
    return f"{path}:{mark.line + 1}:{mark.column + 1}"


def _remember(layer: SettingsSource, path: Path, node: yaml.MappingNode, prefix: str) -> None:
    """Note where each key stands; of two equal keys YAML would let the last one win in silence."""
    for key_node, value_node in node.value:
        key = f"{prefix}{key_node.value}"
        place = _place(path, key_node.start_mark)
        if key in layer.places:
            layer.problems.append(f"{place}: {key} stands already at {layer.places[key]}")
        layer.places[key] = place
        if isinstance(value_node, yaml.MappingNode):
            _remember(layer, path, value_node, f"{key}.")
