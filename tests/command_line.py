"""The command line in this process: what it says and its exit code, without the half second of a new process."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from encephalon.cli.app import app
from encephalon.cli.failures import reported

__all__ = ["CommandLine", "Said", "logs_as_before"]


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """Why it was refused: the one line beside those that tell that something began."""
        lines = [line for line in self.err.splitlines() if not line.endswith(" ...")]
        assert len(lines) == 1, self.err
        assert self.out == ""
        return lines[0]


class CommandLine:
    """Runs `encephalon WORDS` on the library of a state folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._capsys = capsys
        monkeypatch.setenv("ENCEPHALON_STATE_DIR", str(folder))
        monkeypatch.setenv("COLUMNS", "80")
        for name in ("ENCEPHALON_ETCD", "ENCEPHALON_MINIO", "ENCEPHALON_NAMESPACE"):
            monkeypatch.delenv(name, raising=False)

    def run(self, *words: object) -> Said:
        self._capsys.readouterr()
        with logs_as_before():
            code = reported(lambda: app([str(word) for word in words], standalone_mode=False, prog_name="encephalon"))
        return Said(code, *self._capsys.readouterr())

    def library(self, *words: object) -> Said:
        """`encephalon library WORDS`, which must succeed."""
        said = self.run("library", *words)
        assert said.code == 0, said.err
        return said

    def json(self, *words: object) -> Any:
        return self.library(*words, "--json").document

    def refused(self, *words: object, code: int = 2) -> str:
        """`encephalon library WORDS`, which must be refused; the sentence."""
        said = self.run("library", *words)
        assert said.code == code, said.out + said.err
        return said.sentence


@contextlib.contextmanager
def logs_as_before() -> Iterator[None]:
    """A command routes the logs of its process, which is ours."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level
        structlog.reset_defaults()
