"""The same client for programs without an event loop: each call runs on a loop of its own until it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import ArrayLike

from encephalon.client.answer import Answer
from encephalon.client.brains import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S, Brains, connect
from encephalon.client.description import BrainDescription
from encephalon.core.contract import Contract

__all__ = ["BlockingBrains", "connect_blocking"]

T = TypeVar("T")


class BlockingBrains:
    """`Brains`, one call after the other. Every method waits for the method of the same name there."""

    def __init__(self, brains: Brains, runner: asyncio.Runner) -> None:
        self._brains = brains
        self._runner = runner

    def infer(
        self,
        brain: str,
        inputs: Mapping[str, ArrayLike | None] | None = None,
        /,
        *,
        timeout: float | None = None,
        outputs: Sequence[str] = (),
        parameters: Mapping[str, bool | int | float | str] | None = None,
        **named: ArrayLike | None,
    ) -> Answer:
        return self._run(
            self._brains.infer(brain, inputs, timeout=timeout, outputs=outputs, parameters=parameters, **named)
        )

    def names(self) -> list[str]:
        return self._run(self._brains.names())

    def ready(self, brain: str) -> bool:
        return self._run(self._brains.ready(brain))

    def contract(self, brain: str) -> Contract:
        return self._run(self._brains.contract(brain))

    def describe(self, brain: str) -> BrainDescription:
        return self._run(self._brains.describe(brain))

    def load(self, brain: str, manifest: Path | str | None = None) -> None:
        self._run(self._brains.load(brain, manifest))

    def unload(self, brain: str) -> None:
        self._run(self._brains.unload(brain))

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(call)


@contextmanager
def connect_blocking(
    address: str = DEFAULT_ADDRESS, *, timeout: float = DEFAULT_TIMEOUT_S, metadata: Sequence[tuple[str, str]] = ()
) -> Iterator[BlockingBrains]:
    """`with connect_blocking("127.0.0.1:9000") as brains:`; not for use inside a running event loop."""
    with asyncio.Runner() as runner:
        connection = connect(address, timeout=timeout, metadata=metadata)
        brains = runner.run(connection.__aenter__())
        try:
            yield BlockingBrains(brains, runner)
        finally:
            runner.run(connection.__aexit__(None, None, None))
