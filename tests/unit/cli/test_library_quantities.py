from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from encephalon.cli.library import quantities
from encephalon.core.errors import InvalidInput

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (251 * 1024, "251 KiB"),
        (1023 * 1024, "1.00 MiB"),
        (56_700_000, "54.1 MiB"),
        (5 * 1024**4, "5.00 TiB"),
        (5000 * 1024**4, "5000 TiB"),
    ],
)
def test_sizes_have_three_digits(count: int, text: str) -> None:
    assert quantities.size(count) == text


@pytest.mark.parametrize(
    ("past", "text"),
    [
        (timedelta(seconds=-5), "0 s ago"),  # another machine's clock is ahead
        (timedelta(seconds=59), "59 s ago"),
        (timedelta(minutes=59, seconds=59), "59 min ago"),
        (timedelta(hours=47, minutes=59), "47 h ago"),
        (timedelta(days=10), "2026-02-28"),
    ],
)
def test_times_are_told_from_now(past: timedelta, text: str) -> None:
    stamp = Timestamp()
    stamp.FromDatetime(NOW - past)
    assert quantities.ago(stamp, NOW) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("0", 0), ("15m", 900), ("1.5 h", 5400), ("24h", 86400), ("7D", 604800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert quantities.duration(text, "--grace") == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1h", "1w", "h", "1e3"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"--grace .*write seconds, or 15m, 24h, 7d"):
        quantities.duration(text, "--grace")
