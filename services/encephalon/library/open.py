"""Opens a library by the addresses of its two stores."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from encephalon.core.errors import InvalidInput
from encephalon.library.library import Library
from encephalon.library.store.cache import DEFAULT_BYTES, Cache
from encephalon.state import embedded, open_key_value, open_objects

__all__ = ["default_cache_dir", "open_library"]


@contextlib.asynccontextmanager
async def open_library(
    state: str | None = None,
    objects: str | None = None,
    *,
    namespace: str = "default",
    cache_dir: Path | None = None,
    cache_bytes: int = DEFAULT_BYTES,
    seed: bool = True,
) -> AsyncIterator[Library]:
    """The library of these stores while the block lasts; without addresses, the one embedded in this user's folder.

    state: sqlite:///ABSOLUTE/PATH or etcd://HOST:PORT.
    objects: folder:///ABSOLUTE/PATH or minio://ACCESS:SECRET@HOST:PORT/BUCKET.
    seed: puts the built-in areas, networks and samples into a library that is new or knows older ones.

    Raises InvalidInput for a bad address and for etcd alone, and Unavailable, Denied, FailedPrecondition when a store
    cannot be used.
    """
    if objects is None and state is not None and not state.startswith("sqlite:"):
        raise InvalidInput(
            "a library with its records in etcd needs its bytes where other machines find them; "
            "name an object store as well, minio://ACCESS:SECRET@HOST:PORT/BUCKET"
        )
    if state is None or objects is None:
        embedded.prepare(embedded.default_state_dir())
        state = state or embedded.key_value_url(embedded.default_state_dir())
        objects = objects or embedded.objects_url(embedded.default_state_dir())
    cache = Cache(cache_dir or default_cache_dir(), cache_bytes)
    async with open_key_value(state) as key_value, open_objects(objects) as bytes_of:
        library = Library(key_value, bytes_of, namespace=namespace, cache=cache)
        try:
            if seed:
                from encephalon.library.builtins.seed import seed as put_built_ins

                await put_built_ins(library)
            yield library
        finally:
            cache.close()


def default_cache_dir() -> Path:
    """The folder that the platform keeps for what a user's programs can get again."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("encephalon", appauthor=False)) / "objects"
