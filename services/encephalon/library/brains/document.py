"""YAML (and JSON, which is YAML) as plain values that remember their lines, within bounds that no file can break."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from encephalon.core.errors import InvalidManifest

__all__ = ["MAX_BYTES", "Document", "Path", "read_document"]

Path = tuple[str | int, ...]

# A manifest of a hundred regions has some 20 KB; PyYAML parses these bounds' worst case in about two seconds.
MAX_BYTES = 128 * 1024
MAX_VALUES = 20_000
MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Document:
    """The values of a file; `lines` gives the line (from 1) of every key and list item by its path."""

    origin: str
    value: Any
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """The line of the value at `path`, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def error(self, path: Path, sentence: str, **details: object) -> InvalidManifest:
        line = self.line(path)
        return InvalidManifest(f"{self.origin} line {line}: {sentence}", origin=self.origin, line=line, **details)


def read_document(text: str, origin: str) -> Document:
    """InvalidManifest, with the line, for what is no YAML, repeats a key, or is too large or deep when unfolded."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise InvalidManifest(f"{origin}: a manifest has at most {MAX_BYTES // 1024} KiB", origin=origin)
    try:
        loader = yaml.SafeLoader(text)
        return Reader(loader, origin).document(loader.get_single_node())
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InvalidManifest(
            f"{origin} line {line}: a character that YAML does not allow", origin=origin, line=line
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InvalidManifest(
            f"{origin} line {line}: {error.problem or 'not YAML'}", origin=origin, line=line
        ) from None
    except RecursionError:
        raise InvalidManifest(f"{origin}: nested more than {MAX_DEPTH} levels deep", origin=origin) from None


class Reader:
    """Builds the values of a node tree; counts them, so that aliases cannot multiply without end."""

    def __init__(self, loader: yaml.SafeLoader, origin: str) -> None:
        self._loader = loader
        self._origin = origin
        self._lines: dict[Path, int] = {}
        self._count = 0

    def document(self, node: yaml.Node | None) -> Document:
        if node is None:
            raise InvalidManifest(f"{self._origin}: the manifest is empty", origin=self._origin)
        value = self._value(node, ())
        return Document(self._origin, value, self._lines)

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self._lines.setdefault(path, node.start_mark.line + 1)
        self._count += 1
        if self._count > MAX_VALUES:
            raise self._error(node, f"the manifest unfolds to more than {MAX_VALUES} values")
        if len(path) > MAX_DEPTH:
            raise self._error(node, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            here = (*path, key)
            if key in values:
                raise self._error(key_node, f"'{key}' is given twice, first on line {self._lines[here]}")
            self._lines[here] = key_node.start_mark.line + 1
            values[key] = self._value(value_node, here)
        return values

    def _key(self, node: yaml.Node) -> str:
        key = self._scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            raise self._error(node, "a key must be text; put it in quotes")
        return key

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            return self._loader.construct_object(node)
        except (ValueError, OverflowError):
            raise self._error(node, f"'{str(node.value)[:40]}' is not a value that YAML knows") from None

    def _error(self, node: yaml.Node, sentence: str) -> InvalidManifest:
        line = node.start_mark.line + 1
        return InvalidManifest(f"{self._origin} line {line}: {sentence}", origin=self._origin, line=line)
