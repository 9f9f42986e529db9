"""What a round says that it waits for."""

from __future__ import annotations

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.training.controller.rounds import Part, Round


def test_one_asks_for_its_share_and_several_for_theirs() -> None:
    one = Round(pb.Share(), [Part(0, 0, 5, "a")])
    two = Round(pb.Share(), [Part(0, 0, 5, "a"), Part(1, 5, 10, "b")])
    assert one.waiting() == "waits until a asks for its share"
    assert two.waiting() == "waits until a and b ask for their shares"
