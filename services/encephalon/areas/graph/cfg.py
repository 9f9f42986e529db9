"""Reads Darknet's cfg format: sections in brackets, `key=value` lines, comments from `#` or `;` on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from encephalon.core.errors import InvalidInput

__all__ = ["MAX_BYTES", "Section", "read_cfg"]

# The largest published one (YOLOv4-p6) has 30 KB and 305 sections.
MAX_BYTES = 256 * 1024
MAX_SECTIONS = 2_000
NUMBER = re.compile(r"[+-]?[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Section:
    kind: str
    line: int
    options: dict[str, str]

    def error(self, sentence: str) -> InvalidInput:
        return InvalidInput(f"cfg line {self.line}, [{self.kind}]: {sentence}", line=self.line, section=self.kind)

    def number(self, key: str, default: int | None = None, least: int = 0, most: int = 1_000_000) -> int:
        """A whole number in these bounds. InvalidInput when it is none, or is missing and has no default."""
        text = self.options.get(key)
        if text is None:
            if default is None:
                raise self.error(f"'{key}' is missing")
            return default
        return self.bounded(key, text, least, most)

    def numbers(self, key: str) -> list[int]:
        """Whole numbers, separated by commas."""
        if key not in self.options:
            raise self.error(f"'{key}' is missing")
        return [self.bounded(key, part, -1_000_000, 1_000_000) for part in self.options[key].strip(",").split(",")]

    def bounded(self, key: str, text: str, least: int, most: int) -> int:
        if not NUMBER.fullmatch(text) or not least <= int(text) <= most:
            raise self.error(f"'{key}' is '{text[:40]}', expected a whole number from {least} to {most}")
        return int(text)

    def word(self, key: str, default: str) -> str:
        return self.options.get(key, default)


def read_cfg(text: str) -> list[Section]:
    """The sections in order. InvalidInput, with the line, for what is no cfg or is larger than any real one."""
    if len(text) > MAX_BYTES:
        raise InvalidInput(f"the cfg has {len(text)} characters, expected at most {MAX_BYTES}; is it a cfg file?")
    sections: list[Section] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = "".join(re.split("[#;]", line, maxsplit=1)[0].split())
        if not line:
            continue
        if line.startswith("["):
            if not re.fullmatch(r"\[\w{1,40}\]", line):
                raise InvalidInput(f"cfg line {number}: '{line[:40]}' is no section such as [convolutional]")
            sections.append(Section(line[1:-1].lower(), number, {}))
            continue
        key, equals, value = line.partition("=")
        if not equals or not key or not sections:
            raise InvalidInput(f"cfg line {number}: '{line[:40]}' is no 'key=value' below a section; is it a cfg file?")
        sections[-1].options[key.lower()] = value
    if len(sections) > MAX_SECTIONS:
        raise InvalidInput(f"the cfg has {len(sections)} sections, expected at most {MAX_SECTIONS}")
    return sections
