"""One version of a region's network: what computes, what it has computed so far, and what that costs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from encephalon.areas import Network
from encephalon.core.contract import Contract
from encephalon.core.cost import CostModel
from encephalon.core.inference.models import BatchStatistics, ModelStatistics
from encephalon.region.figures import Figures
from encephalon.region.source import Config

__all__ = ["Version"]


@dataclass(eq=False, slots=True)
class Version:
    """A network that is loaded and warm. Two of them are never equal, so messages for one share no batch with the
    other's.
    """

    name: str
    """As answers name it: "1", "2", ..."""
    config: Config
    network: Network
    contract: Contract
    """The network's own, which may be narrower than its area's."""
    statistics: ModelStatistics
    figures: Figures
    cost: CostModel = field(default_factory=CostModel)
    inline: bool = False
    """So cheap that going to another thread would cost more than computing."""
    cancelled: threading.Event | None = None
    """Networks that can stop in the middle look at this event."""

    def computed(self, rows: int, messages: int, ns: tuple[int, int, int]) -> None:
        """Counts one execution; `ns` are the nanoseconds for preparing the input, the network and the output."""
        statistics = self.statistics
        statistics.execution_count += 1
        statistics.inference_count += rows
        statistics.compute_input.add(ns[0] * messages, messages)
        statistics.compute_infer.add(ns[1] * messages, messages)
        statistics.compute_output.add(ns[2] * messages, messages)
        batch = statistics.batches.get(rows)
        if batch is None:
            batch = statistics.batches[rows] = BatchStatistics(rows)
        batch.compute_infer.add(ns[1])
        self.figures.compute.observe(ns[1] / 1e9)
        self.figures.batch.observe(rows)
