"""What ends or interrupts the way of a run."""

from __future__ import annotations

from encephalon.core.errors import EncephalonError, FailedPrecondition, Unavailable

__all__ = ["RunFailed", "ShardLost", "Stalled", "Stopped", "Superseded"]


class ShardLost(Unavailable):
    """A shard has not what it should have; everything is loaded from the checkpoint again."""


class Stalled(Unavailable):
    """A shard is there, but waits in vain for a contribution that was reported as pushed."""


class RunFailed(FailedPrecondition):
    """The run ends; it can be resumed from its checkpoint."""


class Superseded(FailedPrecondition):
    """Another control node leads the run now."""


class Stopped(EncephalonError):
    """Somebody has asked for the end of the run."""
