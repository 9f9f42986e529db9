from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from encephalon.core.errors import InvalidInput
from encephalon.core.settings import Settings


class Example(Settings):
    """Serves an example."""

    brain: Path
    """The manifest."""

    max_rows: int = Field(default=32, ge=1)
    """Rows that go together; 32 because of the cache."""

    quiet: bool = False
    """Says nothing."""


def test_flag_over_environment_over_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Example.read(["--brain", "a"]).max_rows == 32
    monkeypatch.setenv("ENCEPHALON_MAX_ROWS", "5")
    monkeypatch.setenv("ENCEPHALON_BRAIN", "from-environment")
    assert Example.read([]).max_rows == 5
    assert Example.read([]).brain == Path("from-environment")
    assert Example.read(["--max-rows", "7", "--quiet"]).max_rows == 7
    assert Example.read(["--quiet"]).quiet


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--brain is missing; give it, or set ENCEPHALON_BRAIN"),
        (["--brain"], "argument --brain: expected one argument; --help lists the settings"),
        (["--brain", "a", "--max-rows", "many"], "--max-rows (or ENCEPHALON_MAX_ROWS) is 'many': "),
        (["--brain", "a", "--max-rows", "0"], "--max-rows (or ENCEPHALON_MAX_ROWS) is '0': "),
        (["--brain", "a", "--speed", "3"], "unrecognized arguments: --speed 3; --help lists the settings"),
    ],
)
def test_a_mistake_is_one_sentence_and_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        Example.read(arguments)
    assert caught.value.message.startswith(sentence)
    with pytest.raises(SystemExit) as left:
        Example.read_or_exit(arguments)
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_explains_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        Example.read_or_exit(["--help"], "example")
    assert left.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("Serves an example.", "Rows that go together; 32 because of the cache.", "ENCEPHALON_MAX_ROWS"):
        assert part in text
