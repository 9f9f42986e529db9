from __future__ import annotations

from collections.abc import Callable

import pytest
import typer

from encephalon.cli.failures import reported
from encephalon.core.errors import FailedPrecondition, InvalidInput, InvalidManifest, NotFound, Unavailable


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (InvalidInput("wrong shape"), 2, "wrong shape"),
        (InvalidManifest("digits.yaml line 3: no"), 2, "digits.yaml line 3: no"),
        (NotFound("no such brain"), 2, "no such brain"),
        (Unavailable("etcd is away"), 1, "etcd is away"),
        (FailedPrecondition("two\nlines"), 1, "two lines"),
        (typer.BadParameter("must be a number"), 2, "must be a number"),
        (PermissionError(13, "Permission denied", "/x"), 1, "/x: Permission denied"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 1, "the package 'torch' is missing"),
        (ZeroDivisionError("oh"), 1, "unexpected ZeroDivisionError: oh"),
    ],
)
def test_a_failure_is_one_line_and_a_code(
    error: Exception, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reported(raising(error)) == code
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_success_is_0_and_a_chosen_code_stays() -> None:
    assert reported(lambda: None) == 0
    assert reported(raising(typer.Exit(3))) == 3


def test_ctrl_c_is_130_and_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert reported(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == ""
