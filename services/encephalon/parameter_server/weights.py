"""The parameters of a shard with what their optimiser remembers: one version after another."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.learning.checkpoint import Content, Held
from encephalon.parameter_server.gate import Gate
from encephalon.parameter_server.gradient import Gradient
from encephalon.parameter_server.memory import Memory
from encephalon.parameter_server.optimizer import ShardOptimizer
from encephalon.parameter_server.places import Places

__all__ = ["Weights"]


class Weights:
    """Any thread reads; one alone changes them, takes their content, and looks at the rate."""

    def __init__(self, wanted: pb.Optimizer, places: Places, memory: Memory) -> None:
        """Version 0, all zeros. Raises as `ShardOptimizer`."""
        self.version = 0
        self.places = places
        self.memory = memory
        self.flat = memory(4 * places.elements).view(torch.float32)
        """Slice behind slice (`places.offsets`)."""
        self.gate = Gate()
        self.optimizer = ShardOptimizer(wanted, places, self.flat)
        self._wanted = wanted
        self._slot_bytes = 0

    def restore(self, held: Held) -> None:
        """`flat` has been filled from a checkpoint; this is what belongs to it. Raises as `ShardOptimizer`."""
        with self.memory.changing(held.version):
            self.optimizer = ShardOptimizer(self._wanted, self.places, self.flat, held)
        self._slot_bytes = self.optimizer.slot_bytes
        self.version = held.version

    def view(self, number: int) -> torch.Tensor:
        """A slice, float32 [elements]. InvalidInput for one of another shard."""
        return self.places.view(self.flat, number)

    def reading(self) -> AbstractContextManager[None]:
        """Nothing is applied within the block, which waits while something is."""
        return self.gate.reading()

    def apply(self, gradients: Mapping[int, Gradient | None], version: int) -> None:
        """By slice: a step for what is learned, and the value itself for buffers. When it raises, half of it may have
        been done."""
        with self.gate.writing(), self.memory.changing(version):
            self.optimizer.step(gradients)
            for number, value in gradients.items():
                if value is not None and not self.places.learned(number):
                    value.into(self.view(number))
            self.version = version
        self._slot_bytes = self.optimizer.slot_bytes

    def skip(self, version: int) -> None:
        """Nothing but the version changes."""
        with self.memory.changing(version):
            self.version = version

    @property
    def learning_rate(self) -> float:
        return self.optimizer.learning_rate

    @property
    def held_bytes(self) -> int:
        """Parameters and slots."""
        return self.flat.nbytes + self._slot_bytes

    def content(self) -> Content:
        """Of a checkpoint: views, so nothing may be applied while it is used."""
        held = Held(self.version, self.optimizer.name, schedule=self.optimizer.schedule())
        for number in self.places.numbers:
            held.slots[number], held.scalars[number] = self.optimizer.slots(number)
        return Content(held, {number: self.view(number) for number in self.places.numbers})
