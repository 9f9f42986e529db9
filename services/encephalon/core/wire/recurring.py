"""Requests that are like an earlier one but for their elements and their id, as those of one caller mostly are.

What such a request says otherwise is remembered under its length, and read again by comparing bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from encephalon.core.wire.layout import Layout
from encephalon.core.wire.messages import InferRequest
from encephalon.core.wire.tensor import Tensor

__all__ = ["recall", "remember"]

Span = tuple[int, int]
"""Start and end in the message."""

MOST_PATTERNS = 256
# Bytes beside the elements; longer ones would cost more memory than they save time.
LONGEST_FIXED = 1024


@dataclass(frozen=True, slots=True)
class Pattern:
    """`fixed` are the bytes beside elements and id, with their places: tags and lengths among them, so a message of
    equal length that has them has the same fields.
    """

    fixed: tuple[tuple[bytes, int], ...]
    id: Span
    model_name: str
    model_version: str
    tensors: tuple[tuple[str, str, tuple[int, ...], int, int], ...]


# By the length of the whole message; the latest message of a length stands for it.
patterns: dict[int, Pattern] = {}


def recall(message: bytes) -> InferRequest | None:
    """The request, if one like it was remembered. UnicodeDecodeError for an id that is no text."""
    pattern = patterns.get(len(message))
    if pattern is None:
        return None
    for part, at in pattern.fixed:
        if not message.startswith(part, at):
            return None
    view = memoryview(message)
    inputs = [Tensor(name, kind, shape, view[start:stop]) for name, kind, shape, start, stop in pattern.tensors]
    start, stop = pattern.id
    id = message[start:stop].decode() if start < stop else ""
    return InferRequest(pattern.model_name, pattern.model_version, id, {}, inputs, [], [])


def remember(
    message: bytes, request: InferRequest, ids: Sequence[Span], layouts: Sequence[Layout], raw: Sequence[Span]
) -> None:
    """Keeps what `message`, which was read as `request`, says beside its elements, if that is all in the usual form."""
    if len(ids) > 1 or request.parameters or request.outputs or not all(map(plain, layouts)):
        return
    fixed = between(message, sorted([*ids, *raw]))
    if sum(len(part) for part, _ in fixed) > LONGEST_FIXED:
        return
    if len(patterns) >= MOST_PATTERNS:
        patterns.clear()
    tensors = tuple((each.name, each.datatype, each.shape, *span) for each, span in zip(layouts, raw, strict=True))
    patterns[len(message)] = Pattern(
        fixed, ids[0] if ids else (0, 0), request.model_name, request.model_version, tensors
    )


def plain(layout: Layout) -> bool:
    """Whether any bytes of the right number are elements of it, and come as raw contents."""
    return layout.datatype not in ("BOOL", "BYTES") and layout.typed is None and not layout.shared


def between(message: bytes, holes: Sequence[Span]) -> tuple[tuple[bytes, int], ...]:
    """The bytes outside of the holes, which are in order, each with its place."""
    starts = (0, *(stop for _, stop in holes))
    stops = (*(start for start, _ in holes), len(message))
    return tuple((message[start:stop], start) for start, stop in zip(starts, stops, strict=True) if start < stop)
