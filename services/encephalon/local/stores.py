"""The stores of a brain, seen from outside: can they be reached, and are the weights where the regions will look?"""

from __future__ import annotations

import hashlib
from contextlib import suppress

from encephalon.core.errors import NotFound, Unavailable
from encephalon.library.brains import Brain
from encephalon.library.store import object_key
from encephalon.local.decisions import changed, weights_file
from encephalon.state import Objects, open_key_value, open_objects

__all__ = ["check_key_value", "forget", "with_stored_weights"]


async def check_key_value(address: str) -> None:
    """Unavailable, with a sentence that names the address, when the store does not answer."""
    async with open_key_value(address) as store:
        await store.get("/encephalon/probe")


async def forget(address: str, namespace: str) -> None:
    """Removes what a namespace of its own has left behind; a store that is away keeps it, which does no harm."""
    with suppress(Unavailable):
        async with open_key_value(address) as store:
            for key in [entry.key async for entry in store.list(f"/encephalon/{namespace}/")]:
                await store.delete(key)


async def with_stored_weights(brain: Brain, address: str) -> Brain:
    """Puts the brain's weights into the object store and returns the brain with regions that load them from there."""
    async with open_objects(address) as objects:
        changes = {}
        for region in brain.regions:
            file = None if region.address or (region.weights or "").startswith("object:") else weights_file(region)
            if file is None:
                continue
            try:
                data = file.read_bytes()
            except OSError as error:
                raise NotFound(f"cannot read the weights {file} of region '{region.name}': {error.strerror}") from error
            changes[region.name] = {"weights": f"object:sha256:{await stored(objects, data)}"}
    return changed(brain, changes)


async def stored(objects: Objects, data: bytes) -> str:
    """The digest under which the bytes are kept; nothing is sent when they are there already."""
    digest = hashlib.sha256(data).hexdigest()
    with suppress(NotFound):
        await objects.stat(object_key(digest))
        return digest
    await objects.put(object_key(digest), data)
    return digest
