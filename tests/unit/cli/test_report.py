from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from encephalon.cli.report import choice, figures, show
from encephalon.cli.trial import ABSENT, Trial, Verdict
from encephalon.library.sample import Sample


def verdict(label: int, image: int, audio: int, fused: int, latency_ms: float = 5.0) -> Verdict:
    digits = {"image": image, "audio": audio, "fused": fused}
    return Verdict(label, digits, dict.fromkeys(digits, 0.75), latency_ms, {"visual": 1.0, "auditory": 2.0})


TRIAL = Trial(
    [verdict(1, 1, 1, 1), verdict(2, 2, 3, 2), verdict(3, 5, 3, 3), verdict(4, 4, 9, 9)],
    seconds=2.0,
    regions=("visual", "auditory"),
)
SAMPLE = Sample(
    np.tile(np.arange(28, dtype=np.uint8) * 9, (4, 28, 1)),
    np.zeros((4, 8000), np.int16),
    np.array([1, 2, 3, 4]),
    np.arange(4),
)


def test_figures_are_one_json_object() -> None:
    read = json.loads(json.dumps(figures("digits", TRIAL, start_seconds=1.0, concurrency=4)))
    assert read["accuracy"] == {"image": 0.75, "audio": 0.5, "fused": 0.75}
    assert read["pairs"] == 4
    assert read["latency_ms"] == {"p50": 5.0, "p99": 5.0}
    assert read["regions"]["auditory"]["latency_ms"]["p50"] == 2.0
    assert read["requests_per_second"] == 2.0


def test_disputed_pairs_come_every_second_time() -> None:
    assert choice(TRIAL.verdicts, 3) == [0, 1, 2]
    assert choice(TRIAL.verdicts, 10) == [0, 1, 2, 3]
    assert choice(TRIAL.verdicts, 0) == []


@pytest.mark.parametrize("width", [30, 44, 45, 80, 200])
@pytest.mark.parametrize("colour", [None, "standard", "truecolor"])
def test_the_tables_fit_terminals_of_every_width(width: int, colour: str | None) -> None:
    written = io.StringIO()
    console = Console(file=written, width=width, color_system=colour, force_terminal=colour is not None)
    show(console, SAMPLE, TRIAL, pictures=4)
    text = written.getvalue()
    assert "75.0%" in text
    assert "auditory" in text
    if colour is None:
        assert max(len(line) for line in text.splitlines()) <= width


def test_a_sense_that_came_too_late_is_shown_as_such() -> None:
    written = io.StringIO()
    show(Console(file=written, width=80), SAMPLE, Trial([verdict(1, ABSENT, 1, 1)], 1.0, ("visual",)), pictures=1)
    assert "too late" in written.getvalue()


def test_a_terminal_of_plain_letters_gets_plain_letters() -> None:
    written = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=written, width=80)
    show(console, SAMPLE, TRIAL, pictures=4)
    written.seek(0)
    assert "concluded" in written.read()
