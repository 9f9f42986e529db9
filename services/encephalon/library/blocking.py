"""The library for programs without an event loop."""

from __future__ import annotations

from encephalon.core.blocking import twin
from encephalon.library.open import open_library

__all__ = ["open_library_blocking"]

open_library_blocking = twin(open_library)
"""`with open_library_blocking() as library: library.show("digits@production")`.

Takes what `open_library` takes, and gives a library each of whose methods waits for the method of the same name there;
`ls` and `watch` are plain iterators, `writing` is a plain block. Works inside a running event loop too, as in a
notebook.
"""
