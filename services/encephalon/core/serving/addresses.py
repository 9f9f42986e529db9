"""Where a server listens: `host:port`, `[v6]:port` or `unix:/path`. Says in one sentence why it cannot."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from encephalon.core.errors import FailedPrecondition, InvalidInput

__all__ = ["check_free", "host_port", "remove_socket", "unix_path"]

UNIX_PATH_LIMIT = 107
"""Bytes; `sun_path` of Linux holds 108 with the closing zero."""


def unix_path(address: str) -> str | None:
    """The path of a Unix address, None for a TCP address."""
    return address.removeprefix("unix:").removeprefix("//") if address.startswith("unix:") else None


def host_port(address: str) -> tuple[str, int]:
    """InvalidInput unless the address is host:port with a port from 0 to 65535."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(f"'{address}' is no address; expected host:port or unix:/path", address=address)
    return host.removeprefix("[").removesuffix("]"), int(port)


def check_free(address: str) -> None:
    """FailedPrecondition when somebody listens there or the address cannot be used. Removes a dead Unix socket."""
    path = unix_path(address)
    if path is None:
        check_port(address)
    else:
        check_path(address, path)


def check_port(address: str) -> None:
    host, port = host_port(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        raise FailedPrecondition(f"cannot listen on {address}: {cause(error)}", address=address) from error


def check_path(address: str, path: str) -> None:
    if len(os.fsencode(path)) > UNIX_PATH_LIMIT:
        raise FailedPrecondition(
            f"cannot listen on {address}: the path is longer than {UNIX_PATH_LIMIT} bytes; choose a shorter one",
            address=address,
        )
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise FailedPrecondition(f"cannot listen on {address}: there is no folder {folder}", address=address)
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FailedPrecondition(f"cannot listen on {address}: a file that is no socket is there", address=address)
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(path) == 0:
            raise FailedPrecondition(f"cannot listen on {address}: another process listens there", address=address)
    remove_socket(path)


def remove_socket(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def cause(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use by another process; choose another or stop that one"
    return (error.strerror or str(error)).lower()
