"""What a run measured, as lines."""

from __future__ import annotations

from itertools import pairwise

import pytest

from encephalon.core.errors import Corrupt
from encephalon.training.recording import History
from tests.unit.training.recording.histories import evaluation, history, step


def test_what_was_written_is_read_again() -> None:
    written = history(25)
    read = History.read(written.dump())
    assert read.dump() == written.dump()
    assert [each.version for each in read.steps] == list(range(1, 26))
    assert [each.version for each in read.evaluations] == [10, 20]
    assert read.steps[0] == written.steps[0]
    assert read.steps[0].bytes == 1 << 40
    assert read.steps[6].loss != read.steps[6].loss  # not a number, and read all the same
    assert len(History.read(b"")) == 0


def test_it_is_cut_back_with_the_run() -> None:
    found = history(25)
    found.cut(20)
    assert (found.steps[-1].version, found.evaluations[-1].version) == (20, 20)
    found.add(step(21))
    assert [each.version for each in found.steps][-2:] == [20, 21]
    found.cut(0)
    assert len(found) == 0


def test_a_long_one_stays_small_and_keeps_its_evaluations() -> None:
    found = History(most=40_000)
    for version in range(1, 2001):
        found.add(step(version))
        if version % 100 == 0:
            found.add(evaluation(version))
        assert len(found.dump()) <= 40_000
    versions = [each.version for each in found.steps]
    gaps = {after - before for before, after in pairwise(versions)}
    assert gaps == {versions[0]}  # evenly, from the beginning to the end
    assert 8 <= versions[0] <= 64
    assert versions[-1] > 1900
    assert len(found.evaluations) == 20


@pytest.mark.parametrize(
    "line",
    [
        b"no json",
        b"[]",
        b"{}",
        b'{"step": 1}',
        b'{"other": {}}',
        b'{"step": {}, "evaluation": {}}',
        b'{"step": {"x": 1}}',
        b'{"step": {"version": -1}}',
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"step": {"shares": {"a": "b"}}}',
    ],
)
def test_a_line_that_is_none_is_named(line: bytes) -> None:
    with pytest.raises(Corrupt, match="line 2 of the history"):
        History.read(history(1).dump() + line)
