"""Who is in a run."""

from __future__ import annotations

import pytest

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import Overloaded
from encephalon.training.controller import members
from encephalon.training.controller.members import Members


def joined(among: Members, name: str, now: float) -> None:
    among.join(pb.Member(worker=name, incarnation=f"i-{name}"), "here", now)


def test_workers_may_come_under_new_names_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MOST_WORKERS", 3)
    among = Members(3.0)
    for number in range(10):
        joined(among, f"pod-{number}", float(number))
        among.leave(next(each for each in among if each.name == f"pod-{number}"))
    assert [each.name for each in among] == ["pod-7", "pod-8", "pod-9"]
    for name in ("a", "b", "c"):
        joined(among, name, 12.0)
    with pytest.raises(Overloaded):
        joined(among, "d", 12.0)
