"""What programs read is JSON, whatever the figures are."""

from __future__ import annotations

import json
import math

import pytest

from encephalon.cli.library.printing import print_json, print_line


def refuse(constant: str) -> float:
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("printed", [print_json, print_line])
def test_numbers_that_json_does_not_have_become_null(printed: object, capsys: pytest.CaptureFixture[str]) -> None:
    document = {"loss": math.nan, "judged": ({"loss": math.inf, "accuracy": 0.5},), "steps": 3, "name": "x", "no": None}
    assert callable(printed)
    printed(document)
    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found == {"loss": None, "judged": [{"loss": None, "accuracy": 0.5}], "steps": 3, "name": "x", "no": None}
