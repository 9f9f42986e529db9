"""Whether a deadline can be met: what the cost model says, and by how much it was wrong lately."""

from __future__ import annotations

import math

from encephalon.core.cost import CostModel

__all__ = ["Admission"]

WAY_BACK = 0.05
"""Share of a message's time that is kept for the answer to travel and be noticed."""
LARGEST = 0.25
"""Share of a message's time beyond which a slip is not taken into account: one long pause must not close the door."""
FADE = 0.999
"""What a slip is worth after one more message that was on time: the worst of the last thousand or so counts."""
STALE_S = 1.0
"""Without a batch for so long the model may be wrong, and an idle mailbox tries."""


class Admission:
    """Predicts when a message will be answered, and learns from when it was.

    The cost model speaks of batches; what lies between them (a busy event loop, a machine that does other things) shows
    as a slip, the difference between the predicted and the real end. The usual worst slip is added to every prediction.
    """

    def __init__(self, cost: CostModel, max_batch: int) -> None:
        self.cost = cost
        self._max_batch = max_batch
        self._slip = 0.0
        self._observed = 0.0

    @property
    def slip(self) -> float:
        """Seconds by which the worst answers of late came after their predicted end."""
        return self._slip

    def seconds(self, rows: int, before: int, after: int) -> float:
        """To compute `before` rows that go first and then a batch with these `rows`, which `after` others fill up."""
        cost = self.cost
        last = min(self._max_batch, before % self._max_batch + rows + after)
        return before // self._max_batch * cost.estimate(self._max_batch) + cost.estimate(max(last, rows))

    def possible(self, needed: float, left: float, idle_since_s: float | None, now: float) -> bool:
        """Whether an answer that takes `needed` seconds keeps a deadline in `left`. `idle_since_s` None means busy."""
        if not self.cost.known or left == math.inf:
            return True
        if needed <= left * (1 - WAY_BACK) - min(self._slip, LARGEST * left):
            return True
        return idle_since_s is not None and now - max(self._observed, idle_since_s) > STALE_S

    def observe(self, rows: int, seconds: float, now: float) -> None:
        """A batch was computed."""
        self._observed = now
        self.cost.observe(rows, seconds)

    def ended(self, expected: float, now: float) -> None:
        """A message was answered, or its deadline passed."""
        slip = now - expected
        if slip > self._slip:
            self._slip += min(slip - self._slip, self.cost.estimate(self._max_batch))
        else:
            self._slip *= FADE
