"""A run between whose processes lies a network of lines that a test can slow down and break."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from encephalon.local.process import Command
from encephalon.training.runs import RunSettings
from tests.servers import free_port
from tests.training.network import SlowLine, between
from tests.training.runs import Place

__all__ = ["lines"]


@contextlib.asynccontextmanager
async def lines(place: Place, settings: RunSettings) -> AsyncIterator[tuple[Place, list[SlowLine]]]:
    """The place in which processes are reached by way of lines: they listen on 127.0.0.1 and say 127.0.0.2."""
    names = ["control-node", *(f"shard-{number}" for number in range(settings.shards))]
    ports = {name: (free_port(), free_port()) for name in names}

    def command(before: Command) -> Command:
        words = list(before.arguments)
        if before.name in ports:
            orders, data = ports[before.name]
            words[words.index("--listen") + 1] = f"127.0.0.1:{orders}"
            control = before.name == "control-node"
            words += ["--advertise", f"127.0.0.2:{orders}" if control else "127.0.0.2"]
            words += [] if control else ["--data-listen", f"127.0.0.1:{data}"]
        # What is in shared memory does not go over a network.
        environment = {**before.environment, "ENCEPHALON_SHARE_MEMORY": "false"}
        return replace(before, arguments=tuple(words), environment=environment)

    async with contextlib.AsyncExitStack() as stack:
        opened = []
        for name, (orders, data) in ports.items():
            for port in (orders,) if name == "control-node" else (orders, data):
                line = between(f"127.0.0.1:{port}", host="127.0.0.2", listen=port)
                opened.append(await stack.enter_async_context(line))
        yield place.otherwise(command), opened
