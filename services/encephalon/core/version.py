"""Which Encephalon this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["installed_version"]


def installed_version() -> str:
    """Of the installed distribution; "unknown" when the package is imported from a folder that was never installed."""
    try:
        return version("encephalon")
    except PackageNotFoundError:
        return "unknown"
