"""The state of a run in the store."""

from __future__ import annotations

import zlib

import pytest

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as ps
from encephalon.api.training.v1.training_pb2 import RunState
from encephalon.core.errors import Corrupt
from encephalon.learning.layout import planned
from encephalon.training.states import packed, unpacked


def state_of(tensors: int, shards: int) -> RunState:
    named = [
        ps.Tensor(name=f"language/model.encoder.layers.{number}.attention.output.weight", shape=[1024, 768], kind=1)
        for number in range(tensors)
    ]
    layout = planned(named, shards)
    pieces = [
        ps.Piece(key=f"pieces/{shard}", sha256="0" * 64, slices=[each for each in layout.slices if each.shard == shard])
        for shard in range(shards)
    ]
    checkpoint = ps.Checkpoint(version=5, tensors=named, pieces=pieces)
    return RunState(run="r", layout=layout, checkpoint=checkpoint, best=checkpoint)


def test_two_thousand_tensors_on_eight_shards_fit_into_the_store() -> None:
    state = state_of(2000, 8)
    assert state.ByteSize() > 1 << 20
    assert len(packed(state)) < 1 << 18
    assert unpacked(packed(state), "r") == state


def test_a_small_state_is_as_it_is() -> None:
    state = state_of(3, 2)
    assert packed(state) == state.SerializeToString(deterministic=True)
    assert unpacked(packed(state), "r") == state


@pytest.mark.parametrize("value", [b"\x78\x9c", b"\xff\xff", zlib.compress(bytes(65 << 20)), zlib.compress(b"abc")])
def test_what_is_no_state_is_refused(value: bytes) -> None:
    with pytest.raises(Corrupt, match="'r'"):
        unpacked(value, "r")
