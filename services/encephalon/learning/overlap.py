"""Computing while parameters and gradients are on their way: each module waits for its own parameters only, and each
gradient goes as soon as it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from torch import Tensor, nn

from encephalon.learning.region import Learned
from encephalon.learning.uses import Uses

__all__ = ["Overlap", "Pulls", "Pushes"]


class Pulls(Protocol):
    """What of `learning.parameters.Pull` is used here."""

    def wait(self, name: str) -> None: ...

    def wait_all(self) -> None: ...


class Pushes(Protocol):
    """What of `learning.parameters.Push` is used here."""

    def gradient(self, name: str, tensor: Tensor | None) -> None: ...

    def value(self, name: str, tensor: Tensor) -> None: ...


class Overlap:
    """Hooks on `module`, whose tensors `learned` are. One share at a time: `begin`, forward and backward passes,
    `last` before the last backward pass, `end`.

    Where a tensor is waited for is known after the first share, in which everything is waited for at the beginning: see
    `learning.uses`.
    """

    def __init__(self, module: nn.Module, learned: Sequence[Learned], check: Callable[[], None] = lambda: None) -> None:
        """check: called at every hook; what it raises ends the pass."""
        self._module, self._learned, self._check = module, learned, check
        self._pull: Pulls | None = None
        self._push: Pushes | None = None
        self._last = False
        self._sent: set[str] = set()
        self._uses: Uses | None = None
        """While the first share is computed."""
        self._placed = False
        self.waited_s = 0.0
        """Seconds of this share in which nothing was computed, because parameters were not there or gradients were
        being handed over."""
        for each in learned:
            if isinstance(each.tensor, nn.Parameter):
                each.tensor.register_post_accumulate_grad_hook(self._sends(each.name))  # type: ignore[no-untyped-call]

    def begin(self, pull: Pulls, push: Pushes | None) -> None:
        """Without `push`, nothing goes out."""
        self._pull, self._push, self._last = pull, push, False
        self._sent.clear()
        self.waited_s = 0.0
        if not self._placed:
            self._wait(pull.wait_all)
            self._uses = Uses(self._module, self._learned)

    def last(self) -> None:
        """From now on a gradient that is accumulated is final."""
        self._last = True

    def end(self, weight: float) -> None:
        """Sends what no backward pass has sent: gradients of earlier passes, that there are none, and buffers times
        `weight`."""
        push = self._push
        if push is not None:
            for each in self._learned:
                if not isinstance(each.tensor, nn.Parameter):
                    push.value(each.name, each.tensor.detach() * weight)
                elif each.name not in self._sent:
                    push.gradient(each.name, each.tensor.grad)
        if self._uses is not None:
            self._place(self._uses)
        self.abandon()

    def abandon(self) -> None:
        """The share is not computed to its end."""
        self._pull = self._push = None
        if self._uses is not None:
            self._uses.close()
            self._uses = None

    def _place(self, uses: Uses) -> None:
        waits: dict[nn.Module, list[str]] = {}
        for each in self._learned:
            waits.setdefault(uses.place(each), []).append(each.name)
        for module, names in waits.items():
            module.register_forward_pre_hook(self._waits(names))
        self._placed = True

    def _waits(self, names: Collection[str]) -> Callable[[nn.Module, object], None]:
        def hook(module: nn.Module, inputs: object) -> None:
            self._check()
            if (pull := self._pull) is not None:
                for name in names:
                    self._wait(lambda name=name: pull.wait(name))  # type: ignore[misc]

        return hook

    def _sends(self, name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            self._check()
            if (push := self._push) is not None and self._last:
                self._sent.add(name)
                self._wait(lambda: push.gradient(name, parameter.grad))

        return hook

    def _wait(self, what: Callable[[], None]) -> None:
        began = time.perf_counter()
        what()
        self.waited_s += time.perf_counter() - began
