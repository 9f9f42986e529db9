"""Whether a control node that has come back can go on with what the shards hold, without going back to a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as ps
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.training.controller.group import Seat

__all__ = ["behind", "last_decision", "notes_since"]


def behind(seats: Sequence[Seat], run: str) -> list[Seat] | None:
    """The shards that have not taken the last decision, which they have prepared; None when the shards do not fit
    together."""
    seen = [seat.seen for seat in seats]
    if any(each.run != run or each.shard != seat.shard for each, seat in zip(seen, seats, strict=True)):
        return None
    newest = max(each.version for each in seen)
    late = [seat for seat in seats if seat.seen.version < newest]
    if not late:
        return []
    last = last_decision(seats)
    if last is None or len({each.generation for each in seen}) != 1:
        return None
    skips = last.decision == ps.DecideRequest.DECISION_SKIP
    can = all(seat.seen.version == newest - 1 and (skips or last.update in seat.seen.prepared) for seat in late)
    return late if can else None


def last_decision(seats: Sequence[Seat]) -> ps.Decided | None:
    """Of the shard that has gone furthest."""
    ahead = max(seats, key=lambda seat: seat.seen.version).seen
    last = ahead.decided[-1] if ahead.decided else None
    return last if last is not None and last.version == ahead.version else None


def notes_since(seats: Sequence[Seat], version: int) -> list[pb.Consumed] | None:
    """What was decided behind this version, in order; None when it is not all there."""
    ahead = max(seats, key=lambda seat: seat.seen.version).seen
    decided = [each for each in ahead.decided if each.version > version]
    if ahead.version < version or [each.version for each in decided] != list(range(version + 1, ahead.version + 1)):
        return None
    return [pb.Consumed.FromString(each.note) for each in decided]
