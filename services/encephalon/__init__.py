"""Encephalon: several expert networks for several senses, made into one working brain.

This is the client's door: `connect` to a coordinator, and the errors that its calls raise. What it names is imported
when it is first used, so that `import encephalon` costs nothing in programs that need only a part of the package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from encephalon.client import Answer, BlockingBrains, Brains, connect, connect_blocking
    from encephalon.core.errors import (
        AlreadyExists,
        Cancelled,
        Conflict,
        Corrupt,
        DeadlineExceeded,
        Denied,
        EncephalonError,
        FailedPrecondition,
        Fatal,
        Internal,
        InvalidInput,
        InvalidManifest,
        NotFound,
        Overloaded,
        Retryable,
        Unavailable,
        Unsupported,
    )

__all__ = [
    "AlreadyExists",
    "Answer",
    "BlockingBrains",
    "Brains",
    "Cancelled",
    "Conflict",
    "Corrupt",
    "DeadlineExceeded",
    "Denied",
    "EncephalonError",
    "FailedPrecondition",
    "Fatal",
    "Internal",
    "InvalidInput",
    "InvalidManifest",
    "NotFound",
    "Overloaded",
    "Retryable",
    "Unavailable",
    "Unsupported",
    "connect",
    "connect_blocking",
]

FROM_CLIENT = {"Answer", "BlockingBrains", "Brains", "connect", "connect_blocking"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'encephalon' has no attribute '{name}'")
    module = "encephalon.client" if name in FROM_CLIENT else "encephalon.core.errors"
    value: object = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
