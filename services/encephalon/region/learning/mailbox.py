"""What a stage has been sent and not yet computed, and what it computes next: 1F1B (Narayanan et al., PipeDream, SOSP
2019, section 3.2; Narayanan et al. 2021, arXiv 2104.04473, section 2.2).

In order within each direction; backward first whenever one is there; forward only while fewer than `in_flight`
micro-batches have gone forward and not yet backward.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

from encephalon.core.errors import InvalidInput, Overloaded

__all__ = ["AHEAD", "Mailbox", "Work"]

AHEAD: Final = 1
"""Forward passes that may wait beyond those that may be computed: the next one is there when a place is free."""

Direction = Literal["forward", "backward"]


@dataclass(frozen=True, slots=True)
class Work:
    """One pass. `payload` is the message's, not yet decoded."""

    direction: Direction
    micro_batch: int
    payload: object


class Mailbox:
    """Of one share. `in_flight` >= 1; `backward`: whether each micro-batch also goes backward."""

    def __init__(self, micro_batches: int, in_flight: int, *, backward: bool) -> None:
        self._micro_batches = micro_batches
        self._in_flight = in_flight
        self._backward = backward
        self._waiting: dict[Direction, deque[Work]] = {"forward": deque(), "backward": deque()}
        self._arrived = {"forward": 0, "backward": 0}
        self._taken = {"forward": 0, "backward": 0}
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None
        self.most_held = 0
        """Most micro-batches that had gone forward and not yet backward."""

    @property
    def finished(self) -> bool:
        """Every pass was taken."""
        return self._taken["backward" if self._backward else "forward"] == self._micro_batches

    @property
    def held(self) -> int:
        """Micro-batches that have gone forward and not yet backward."""
        return self._taken["forward"] - self._taken["backward"] if self._backward else 0

    def put(self, work: Work) -> None:
        """InvalidInput for a pass that is out of order or that cannot be; Overloaded for more than may wait."""
        self._check(work)
        self._arrived[work.direction] += 1
        self._waiting[work.direction].append(work)
        self._changed.set()

    def fail(self, error: BaseException) -> None:
        """Whoever takes next gets the error."""
        self._failure = self._failure or error
        self._changed.set()

    async def take(self) -> Work:
        """The next pass; waits for it."""
        while (work := self.next()) is None:
            self._changed.clear()
            await self._changed.wait()
        return work

    def next(self) -> Work | None:
        """The next pass, None when it has not come or must wait. Raises what `fail` was told."""
        if self._failure is not None:
            raise self._failure
        forward, backward = self._waiting["forward"], self._waiting["backward"]
        if backward:
            self._taken["backward"] += 1
            return backward.popleft()
        if not forward or self.held >= self._in_flight:
            return None
        self._taken["forward"] += 1
        self.most_held = max(self.most_held, self.held)
        return forward.popleft()

    def _check(self, work: Work) -> None:
        expected = self._arrived[work.direction]
        if work.direction == "backward" and not self._backward:
            raise InvalidInput("a backward pass came for a region that only goes forward in this share; send none")
        if work.micro_batch != expected or expected >= self._micro_batches:
            raise InvalidInput(
                f"the {work.direction} pass of micro-batch {work.micro_batch} came, expected {expected} of "
                f"{self._micro_batches}; send them in order, each once"
            )
        if work.direction == "backward":
            if work.micro_batch >= self._taken["forward"]:
                raise InvalidInput(
                    f"the backward pass of micro-batch {work.micro_batch} came before its forward pass was computed"
                )
        elif len(self._waiting["forward"]) >= self._in_flight + AHEAD:
            raise Overloaded(
                f"{len(self._waiting['forward'])} forward passes wait, at most {self._in_flight + AHEAD} may; "
                "send the next one when a micro-batch has come back"
            )
