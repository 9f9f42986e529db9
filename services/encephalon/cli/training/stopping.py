"""`encephalon runs stop`: asks a run to end, and waits until it has."""

from __future__ import annotations

import asyncio
import sys

from encephalon.cli import screen
from encephalon.cli.library.place import Place, run
from encephalon.cli.library.printing import print_json
from encephalon.cli.training.looking import Look, look
from encephalon.core.errors import FailedPrecondition
from encephalon.library.library import Library
from encephalon.local.training import OVER, Runs, ask_to_stop

__all__ = ["stop"]

POLL_S = 0.2


def stop(place: Place, name: str, *, timeout_s: float, as_json: bool) -> None:
    """FailedPrecondition when it does not run, and when it does not stop in time."""
    namespace = place.namespace or "default"

    async def work(library: Library) -> Look:
        runs = Runs(library.key_value, namespace)
        found = await look(runs, name)
        if found.status is None:
            hint = f"`encephalon runs resume {name}` goes on with it" if found.word != "succeeded" else "it is done"
            raise FailedPrecondition(f"run '{name}' does not run, it is {found.word}; {hint}", run=name)
        with screen.bar(f"Stopping '{name}'", None):
            return await stopped(runs, name, timeout_s)

    found = run(place, work)
    if as_json:
        print_json({"run": name, "state": found.word, "steps": found.result.steps})
    else:
        sys.stdout.write(
            f"Run '{name}' is {found.word} at step {found.result.steps}; `encephalon runs resume {name}` goes on.\n"
        )


async def stopped(runs: Runs, name: str, timeout_s: float) -> Look:
    """Asks until somebody has heard; the key in the store is for a control node that is just coming back."""
    try:
        async with asyncio.timeout(timeout_s):
            await runs.ask_to_stop(name)
            while (await runs.state(name))[0].state not in OVER:
                await ask_to_stop(runs.store, runs.namespace, name)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise FailedPrecondition(
            f"run '{name}' did not stop within {timeout_s:.0f} s; it was told to, and will when it can", run=name
        ) from None
    return await look(runs, name)
