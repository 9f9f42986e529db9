"""Brains that were loaded while running, kept in the store so that a restarted coordinator has them again."""

from __future__ import annotations

import logging

from encephalon.core.errors import EncephalonError, InvalidManifest
from encephalon.library.brains import Brain, parse_manifest
from encephalon.state import KeyValue

__all__ = ["KeptBrains"]

LOG = logging.getLogger(__name__)


class KeptBrains:
    """Manifests under /encephalon/<namespace>/brains/<name>. Without the store there is no memory, but service."""

    def __init__(self, store: KeyValue, namespace: str) -> None:
        self._store = store
        self._prefix = f"/encephalon/{namespace}/brains/"

    async def keep(self, brain: Brain) -> None:
        try:
            await self._store.put(self._prefix + brain.name, brain.to_json().encode())
        except EncephalonError as error:
            LOG.warning("a loaded brain is not kept", extra={"brain": brain.name, "error": error.message})

    async def forget(self, name: str) -> None:
        try:
            await self._store.delete(self._prefix + name)
        except EncephalonError as error:
            LOG.warning("an unloaded brain is still kept", extra={"brain": name, "error": error.message})

    async def all(self) -> list[Brain]:
        """Unavailable when the store is out of reach. A manifest that no longer passes the checks is left out."""
        brains = []
        async for entry in self._store.list(self._prefix):
            name = entry.key.removeprefix(self._prefix)
            try:
                brains.append(parse_manifest(entry.value.decode("utf-8", "replace"), name))
            except InvalidManifest as error:
                LOG.error("a kept brain cannot run", extra={"brain": name, "error": error.message})
        return brains
