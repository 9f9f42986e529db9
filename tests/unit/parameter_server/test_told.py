"""How much a shard tells of what was decided."""

from __future__ import annotations

from encephalon.parameter_server.decisions import Decided, Decision
from encephalon.parameter_server.service import MOST_NOTES_BYTES, told


def test_of_very_many_decisions_the_last_ones_are_told() -> None:
    few = [Decided(number, Decision.APPLY, number, note=b"note") for number in range(1, 10)]
    assert told(few) == few
    note = bytes(MOST_NOTES_BYTES // 10)
    many = [Decided(number, Decision.APPLY, number, note=note) for number in range(1, 100)]
    assert [each.update for each in told(many)] == list(range(91, 100))
