"""The brains that come with Encephalon."""

from encephalon.library.builtins import example

__all__ = ["example"]
