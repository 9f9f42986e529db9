"""Encephalon: several expert networks for several senses, made into one working brain.

This is the door for programs: `connect` to a coordinator, `open_library` for what brains are made of, `train` for a
brain that is to learn, and the errors that their calls raise. What it names is imported when it is first used, so that
`import encephalon` costs nothing in programs that need only a part of the package.
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
    from encephalon.library.blocking import open_library_blocking
    from encephalon.library.library import Library
    from encephalon.library.open import open_library
    from encephalon.library.query import Query
    from encephalon.local.training import TrainingResult, train, train_async

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
    "Library",
    "NotFound",
    "Overloaded",
    "Query",
    "Retryable",
    "TrainingResult",
    "Unavailable",
    "Unsupported",
    "connect",
    "connect_blocking",
    "open_library",
    "open_library_blocking",
    "train",
    "train_async",
]

ELSEWHERE = {
    **dict.fromkeys(("Answer", "BlockingBrains", "Brains", "connect", "connect_blocking"), "encephalon.client"),
    "Library": "encephalon.library.library",
    "Query": "encephalon.library.query",
    "open_library": "encephalon.library.open",
    "open_library_blocking": "encephalon.library.blocking",
    **dict.fromkeys(("TrainingResult", "train", "train_async"), "encephalon.local.training"),
}
"""Which module has it, if not that of the errors."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'encephalon' has no attribute '{name}'")
    module = importlib.import_module(ELSEWHERE.get(name, "encephalon.core.errors"))
    value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
