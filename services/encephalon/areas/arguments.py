"""Calls a constructor with arguments that came from a manifest or a file, and explains what does not fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from encephalon.core.errors import InvalidInput

__all__ = ["construct"]

T = TypeVar("T")


def construct(name: str, build: Callable[..., T], arguments: Mapping[str, Any]) -> T:
    """`build(**arguments)`, with `InvalidInput` for an unknown argument or a value of the wrong kind."""
    known = list(inspect.signature(build).parameters)
    for argument in arguments:
        if argument not in known:
            accepted = f"it takes {', '.join(known)}" if known else "it takes none"
            raise InvalidInput(f"{name} has no argument '{argument}'; {accepted}", network=name, argument=argument)
    try:
        return build(**arguments)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"{name} cannot be built with {dict(arguments)}: {error}", network=name) from error
