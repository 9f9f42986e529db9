"""What a store keeps of runs: their settings, their states, and the wish to stop."""

from __future__ import annotations

import difflib
import re
from typing import Final
from urllib.parse import unquote

from encephalon.api.training.v1.training_pb2 import RunState
from encephalon.core.errors import AlreadyExists, Conflict, Corrupt, NotFound
from encephalon.state import KeyValue
from encephalon.state.key_value import ABSENT
from encephalon.training.runs import RunSettings, keys_of, prefix_of
from encephalon.training.states import unpacked

__all__ = ["OVER", "Runs"]

OVER: Final = (RunState.STATE_SUCCEEDED, RunState.STATE_FAILED, RunState.STATE_STOPPED)
"""States in which nothing runs any more."""


class Runs:
    """The runs of a namespace. Everything raises Unavailable when the store does not answer."""

    def __init__(self, store: KeyValue, namespace: str) -> None:
        self.store = store
        self.namespace = namespace

    async def names(self) -> list[str]:
        prefix, found = prefix_of(self.namespace), []
        async for entry in self.store.list(prefix, page=20):  # a state may have a MiB
            run, _, what = entry.key.removeprefix(prefix).partition("/")
            if what == "settings":
                found.append(unquote(run))
        return found

    async def free_name(self, brain: str) -> str:
        """`digits-1`, then `digits-2`, after the brain's name."""
        base = re.sub(r"[^A-Za-z0-9._-]", "-", brain)[:90]
        pattern = re.compile(re.escape(base) + r"-(\d{1,9})")
        taken = [int(found[1]) for name in await self.names() if (found := pattern.fullmatch(name))]
        return f"{base}-{max(taken, default=0) + 1}"

    async def begin(self, settings: RunSettings) -> None:
        """AlreadyExists when there is a run of this name."""
        key, _, _ = keys_of(self.namespace, settings.run)
        try:
            await self.store.put(key, settings.model_dump_json().encode(), expected=ABSENT)
        except Conflict:
            raise AlreadyExists(
                f"there is a run '{settings.run}' already; give another --name, or go on with it by "
                f"--resume {settings.run}"
            ) from None

    async def begin_again(self, settings: RunSettings) -> None:
        """Puts changed settings in the place of those of a run that rests, and takes back the wish to stop."""
        key, _, stop = keys_of(self.namespace, settings.run)
        await self.store.put(key, settings.model_dump_json().encode())
        await self.store.delete(stop)

    async def settings(self, run: str) -> RunSettings:
        """NotFound with the nearest name; Corrupt when another version of Encephalon wrote what this cannot read."""
        entry = await self.store.get(keys_of(self.namespace, run)[0])
        if entry is None:
            raise await self._no_run(run)
        try:
            return RunSettings.read(entry.value)
        except Corrupt as error:
            raise Corrupt(f"run '{run}' is not one of this version: {error.message}", run=run) from error

    async def state(self, run: str) -> tuple[RunState, int]:
        """With the store's revision of it; an empty one, and 0, before the run has begun."""
        entry = await self.store.get(keys_of(self.namespace, run)[1])
        if entry is None:
            return RunState(run=run), 0
        return unpacked(entry.value, run), entry.revision

    async def ask_to_stop(self, run: str) -> None:
        await self.store.put(keys_of(self.namespace, run)[2], b"stop")

    async def _no_run(self, run: str) -> NotFound:
        names = await self.names()
        near = difflib.get_close_matches(run, names, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "see `encephalon runs ls`" if names else "there are none yet"
        return NotFound(f"there is no run '{run}'; {hint}", run=run)
