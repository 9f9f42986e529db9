"""Calls a constructor with arguments that came from a manifest or a file, and explains what does not fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from encephalon.core.errors import InvalidInput

__all__ = ["construct", "whole"]

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


def whole(most: int, **arguments: Any) -> None:
    """ValueError unless each is a whole number from 1 to `most`: a file may ask for any size, before it is known
    whether its tensors have it."""
    for name, value in arguments.items():
        if not isinstance(value, int) or not 1 <= value <= most:
            raise ValueError(f"{name} is {value!r}, expected a whole number from 1 to {most}")
