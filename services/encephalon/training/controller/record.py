"""The state of the run in the store: one writer, compare-and-put, and patience while the store is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import Conflict, EncephalonError
from encephalon.state import ABSENT, KeyValue
from encephalon.training.controller.changes import Changes
from encephalon.training.controller.failures import Superseded
from encephalon.training.states import packed, unpacked

__all__ = ["Record"]

_log = structlog.get_logger(__name__)

PAUSE_S: Final = 0.5


class Record:
    """`state` is changed in place and written soon after `touch`; what was not written yet is tried again."""

    def __init__(self, store: KeyValue, key: str, changes: Changes) -> None:
        self.state = pb.RunState()
        self.problem = ""
        """Why it could not be written; empty when it could."""
        self.superseded: Superseded | None = None
        self._store = store
        self._key = key
        self._changes = changes
        self._revision = ABSENT
        self._tried: bytes | None = None
        """Written perhaps: the store did not say."""
        self._touched = asyncio.Event()

    @property
    def clean(self) -> bool:
        """What is in the store is what is here."""
        return not self._touched.is_set() and self._tried is None

    async def read(self) -> None:
        """Corrupt when it is not what we have written; Unavailable."""
        entry = await self._store.get(self._key)
        if entry is None:
            return
        self._revision = entry.revision
        self.state = unpacked(entry.value, self._key)

    def touch(self) -> None:
        self.state.changed_time.FromNanoseconds(time.time_ns())
        self._touched.set()

    async def write(self) -> None:
        """Now. Unavailable; Superseded when somebody else has written."""
        if self._tried is not None:
            await self._look()
        self._touched.clear()
        value = packed(self.state)
        self._tried = value
        try:
            self._revision = await self._store.put(self._key, value, expected=self._revision)
        except Conflict as error:
            self.superseded = Superseded(f"another control node leads the run now ({error.message})")
            self._changes.told()
            raise self.superseded from error
        except BaseException:
            self._touched.set()
            raise
        self._tried = None
        self.problem = ""

    async def keep(self) -> None:
        """For ever: writes what has changed."""
        while True:
            await self._touched.wait()
            if self.superseded is not None:
                await asyncio.Event().wait()
            try:
                await self.write()
            except Superseded as error:
                _log.error("the state was written by somebody else", cause=error.message)
            except EncephalonError as error:
                if not self.problem:
                    _log.warning("the state of the run cannot be written yet", cause=error.message)
                self.problem = error.message
                await asyncio.sleep(PAUSE_S)
            self._changes.told()

    async def settled(self, within_s: float, over: Callable[[], bool] = lambda: False) -> bool:
        """Whether everything was written within the time."""
        clock = asyncio.get_running_loop().time
        end = clock() + within_s
        while not self.clean and self.superseded is None and clock() < end and not over():
            await self._changes.wait(min(PAUSE_S, max(0.01, end - clock())))
        return self.clean

    async def _look(self) -> None:
        entry = await self._store.get(self._key)
        if entry is not None and entry.value == self._tried:
            self._revision = entry.revision
        self._tried = None
