"""How a record is named: `[kind:]name[@version or alias]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from encephalon.api.library.v1 import library_pb2 as pb
from encephalon.core.errors import InvalidInput
from encephalon.library.records.kinds import KINDS, kind_named, name_of_kind

__all__ = ["LATEST", "Reference", "check_alias", "check_name"]

LATEST = "latest"
"""The alias that follows every new version by itself."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Reference:
    """Names one version: by its number, or by an alias. `kind` is a key of `KINDS`, None: whichever has
    the name.
    """

    name: str
    selector: int | str = LATEST
    kind: str | None = None

    def __str__(self) -> str:
        kind = f"{self.kind}:" if self.kind is not None else ""
        return f"{kind}{self.name}@{self.selector}"

    @classmethod
    def parse(cls, text: str, kind: str | None = None) -> Reference:
        """Reads `digits`, `digits@3`, `brain:digits@production`; `kind` is what a text without one means.

        InvalidInput says what is wrong.
        """
        before, colon, rest = text.rpartition(":")
        name, at, selector = rest.partition("@")
        if colon:
            kind = kind_named(before)
        check_name(name)
        if not at:
            return cls(name, LATEST, kind)
        if selector.isascii() and selector.isdigit() and len(selector) < 9:
            if int(selector) < 1:
                raise InvalidInput(f"'{text[:200]}' names version {selector}; versions count from 1")
            return cls(name, int(selector), kind)
        check_alias(selector)
        return cls(name, selector, kind)

    @classmethod
    def of(cls, message: pb.Reference) -> Reference:
        return cls(message.name, message.version, name_of_kind(message.kind))

    @property
    def message(self) -> pb.Reference:
        """For the wire; InvalidInput unless kind and number are given."""
        if self.kind is None or not isinstance(self.selector, int):
            raise InvalidInput(f"'{self}' names no single version; give its kind and number, as in brain:digits@3")
        return pb.Reference(kind=KINDS[self.kind], name=self.name, version=self.selector)


def check_name(name: str) -> str:
    """InvalidInput unless it is 1 to 128 letters, digits, '.', '_', '/' and '-', and cannot be taken for a path."""
    if not NAME.fullmatch(name) or any(part in ("", ".", "..") for part in name.split("/")):
        raise InvalidInput(
            f"'{name[:140]}' is no name of a record; give 1 to 128 letters, digits, '.', '_', '-' and '/' between them"
        )
    return name


def check_alias(alias: str) -> str:
    """InvalidInput unless it is a letter and at most 62 letters, digits, '.', '_' and '-'."""
    if not ALIAS.fullmatch(alias):
        raise InvalidInput(
            f"'{alias[:80]}' is neither a version nor an alias; an alias is a letter, then at most 62 letters, digits, "
            "'.', '_' and '-'"
        )
    return alias
