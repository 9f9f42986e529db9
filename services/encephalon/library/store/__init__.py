"""Keeps the library's records, aliases and objects in the two stores, whole at any moment. Knows what a record names,
not what it means.
"""

from encephalon.library.store.keys import Keys, object_key

__all__ = ["Keys", "object_key"]
