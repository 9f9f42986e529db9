"""Bytes, times and figures as people read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from encephalon.core.errors import InvalidInput

__all__ = ["ago", "count", "duration", "figure", "moment", "size"]

UNITS = ("KiB", "MiB", "GiB", "TiB")
SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


def size(number: int) -> str:
    """Three significant digits: `817 B`, `1.21 MiB`."""
    if number < 1024:
        return f"{number} B"
    amount = float(number)
    for unit in UNITS:
        amount /= 1024
        if amount < 999.5 or unit == UNITS[-1]:
            break
    return (
        f"{amount:.2f} {unit}"
        if amount < 9.995
        else f"{amount:.1f} {unit}"
        if amount < 99.95
        else f"{amount:.0f} {unit}"
    )


def count(number: int, what: str) -> str:
    """`1 object`, `2 objects`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def moment(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(UTC)


def ago(stamp: Timestamp, now: datetime) -> str:
    """`12 s ago` to `47 h ago`, the local date before that."""
    past = now - moment(stamp)
    if past < timedelta(minutes=1):
        return f"{max(0, int(past.total_seconds()))} s ago"
    if past < timedelta(hours=1):
        return f"{past // timedelta(minutes=1)} min ago"
    if past < timedelta(hours=48):
        return f"{past // timedelta(hours=1)} h ago"
    return moment(stamp).astimezone().date().isoformat()


def figure(number: float) -> str:
    """Four digits, and never fewer than stand before the point."""
    return f"{number:.0f}" if 1000 <= abs(number) < 1e15 else f"{number:.4g}"


def duration(text: str, option: str) -> float:
    """Seconds of `90`, `15m`, `24h`, `7d`; InvalidInput names the option that was meant."""
    found = DURATION.fullmatch(text.strip().lower())
    if not found or (found[2] or "s") not in SECONDS:
        raise InvalidInput(f"{option} {text[:40]} is no time; write seconds, or 15m, 24h, 7d")
    return float(found[1]) * SECONDS[found[2] or "s"]
