"""Who writes: told in every record and every alias."""

from __future__ import annotations

import getpass
import os
import socket

__all__ = ["author"]


def author() -> str:
    """user@host; the user's number where the system has no name for it, as in many containers."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
