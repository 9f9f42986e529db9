from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from encephalon.core import logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_from_both_worlds_carry_the_fields_of_the_process() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream, brain="digits", region="visual")
    logging.getLogger("one").info("it happened", extra={"rows": 3})
    structlog.get_logger("two").warning("it happened too", rows=4)
    first, second = lines(stream)
    assert (first["event"], first["rows"], first["level"], first["logger"]) == ("it happened", 3, "info", "one")
    assert (second["event"], second["rows"], second["level"]) == ("it happened too", 4, "warning")
    for line in (first, second):
        assert (line["brain"], line["region"]) == ("digits", "visual")
        assert line["timestamp"].endswith("Z")


def test_an_error_carries_its_traceback() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    try:
        raise ZeroDivisionError("nothing to share")
    except ZeroDivisionError:
        logging.getLogger("one").exception("it failed")
    (line,) = lines(stream)
    assert "nothing to share" in json.dumps(line["exception"])


async def test_the_context_of_a_request_stays_its_own() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)

    async def request(name: str) -> None:
        logs.request_id.set(name)
        with logs.bound(sequence=name.upper()):
            await asyncio.sleep(0)
            logging.getLogger("one").info("inside")
        logging.getLogger("one").info("outside")

    await asyncio.gather(request("a"), request("b"))
    logging.getLogger("one").info("elsewhere")
    inside = [line for line in lines(stream) if line["event"] == "inside"]
    assert {(line["request_id"], line["sequence"]) for line in inside} == {("a", "A"), ("b", "B")}
    assert all("sequence" not in line for line in lines(stream) if line["event"] == "outside")
    assert "request_id" not in lines(stream)[-1]


def test_a_terminal_gets_text_and_levels_are_kept() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream, as_json=False, level="WARNING")
    logging.getLogger("one").info("unheard")
    logging.getLogger("one").warning("heard", extra={"rows": 3})
    assert "heard" in stream.getvalue()
    assert "rows" in stream.getvalue()
    assert "unheard" not in stream.getvalue()
    assert not stream.getvalue().startswith("{")
