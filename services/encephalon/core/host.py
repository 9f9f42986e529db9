"""Which machine this is, so that two processes know that they can share a socket or memory."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

__all__ = ["host_identity"]

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def host_identity() -> str:
    """Equal for two processes exactly when they share a kernel and a file system root.

    A host name may repeat and two containers of one machine share a kernel but no files, so the kernel's boot id is
    joined by the root's device and inode.
    """
    root = os.stat("/")
    try:
        kernel = BOOT_ID.read_text().strip()
    except OSError:  # not Linux
        kernel = f"{socket.gethostname()}-{uuid.getnode():x}"
    return f"{kernel}-{root.st_dev:x}-{root.st_ino:x}"
