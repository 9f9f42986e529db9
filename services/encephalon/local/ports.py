"""Host and port of a listener that a brain is to have."""

from __future__ import annotations

import errno
import socket

from encephalon.core.errors import FailedPrecondition, InvalidInput

__all__ = ["free_address"]


def free_address(listen: str) -> str:
    """Returns `listen` with a port that nothing listens on; port 0 is replaced by a free one.

    InvalidInput when it is no host:port, FailedPrecondition when the port is taken or the host is not ours.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(f"'{listen}' is no address; give host:port, for example 127.0.0.1:9000")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise InvalidInput(f"host '{host}' is unknown ({error.strerror}); give an address of this machine") from error
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise FailedPrecondition(refusal(listen, error)) from error
        return f"{host}:{probe.getsockname()[1]}"


def refusal(listen: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{listen} is in use by another program; choose another address with --listen, or port 0 for a free one"
    return f"cannot listen on {listen} ({error.strerror}); choose another address with --listen"
