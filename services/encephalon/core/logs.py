"""Logs: for people on a terminal, one JSON object per line elsewhere; both of structlog and of the standard library's
`logging`.

A field that belongs to a whole process is said to `configure`; one that belongs to a request is bound where the request
enters, and every line written for it carries it.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TextIO

import structlog

__all__ = ["bound", "configure", "get_logger", "request_id", "rpc"]

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that this task works for; set directly on hot paths, where `bound` would cost too much."""

rpc: ContextVar[str] = ContextVar("rpc", default="")
"""The gRPC method that this task answers."""

_fields: ContextVar[Mapping[str, object]] = ContextVar("log_fields", default=MappingProxyType({}))
Event = MutableMapping[str, Any]


@contextlib.contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Adds fields to every line that this task, and those that it starts, write within the block."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def get_logger(name: str) -> logging.Logger:
    """A logger of the standard library; pass fields as `extra={...}` and keep the message a constant sentence."""
    return logging.getLogger(name)


def configure(
    *, level: str = "INFO", stream: TextIO | None = None, as_json: bool | None = None, **fields: object
) -> None:
    """Routes all logs of the process to `stream` (stderr). `fields` (brain, region) go into every line.

    `as_json` None means: JSON unless the stream is a terminal.
    """
    stream = stream or sys.stderr
    as_json = not stream.isatty() if as_json is None else as_json
    render = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    )
    shared = _shared(fields)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _shared(fields: Mapping[str, object]) -> list[Any]:
    def context(logger: object, method: str, event: Event) -> Event:
        for name, value in {**fields, **_fields.get()}.items():
            event.setdefault(name, value)
        for variable in (request_id, rpc):
            if value := variable.get():
                event.setdefault(variable.name, value)
        return event

    return [
        context,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
