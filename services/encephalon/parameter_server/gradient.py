"""The gradient of a slice as what came of it: added where it is needed, so that a sum takes no memory of its own."""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["Gradient"]


class Gradient(NamedTuple):
    """Float32 additions in strict order: ((g0 + g1) + g2) * scale, each rounded."""

    parts: tuple[torch.Tensor, ...]
    """Float32 [elements], at least one, in the order of the ranks; only read, for some are the workers' own memory."""
    scale: float = 1.0

    def plain(self) -> bool:
        """Whether it is there already, without being computed."""
        return len(self.parts) == 1 and self.scale == 1.0

    def into(self, scratch: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Elements `start` to `start + len(scratch)`, in `scratch`."""
        first, *others = (part[start : start + len(scratch)] for part in self.parts)
        if not others:
            return torch.mul(first, self.scale, out=scratch)
        torch.add(first, others[0], out=scratch)
        for other in others[1:]:
            scratch.add_(other)
        return scratch if self.scale == 1.0 else scratch.mul_(self.scale)
