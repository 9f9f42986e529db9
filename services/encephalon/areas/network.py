"""What a region runs."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from encephalon.core.contract import Contract

__all__ = ["Arrays", "Network"]

Arrays = dict[str, NDArray[np.generic]]
"""Tensor name to array, the batch as first dimension."""


class Network(Protocol):
    """Takes a batch and gives one; blocks while it computes, so a region calls it in its worker thread, one batch at
    a time.

    For each optional input NAME, `inputs` may hold `NAME.present`, bool [batch]: which rows really came. Without it
    all rows came if NAME is there and none if it is not. Inputs are not written to and may be read-only. An input
    that does not fit raises `InvalidInput`.

    Two more attributes may be there: `inline`, True when it is so cheap that another thread would cost more than it
    computes, and then it is called on the event loop; and `cancelled`, a `threading.Event` that the region sets when
    nobody waits for the batch any more (and clears before the next), for a network that can stop in the middle.
    """

    @property
    def contract(self) -> Contract: ...

    def __call__(self, inputs: Arrays) -> Arrays: ...
