"""Runs a module as `python -m` does, in a process that ends when its parent does.

`python -m encephalon.local.child PARENT MODULE [ARGUMENT...]`. A parent that is killed cannot tidy up; the kernel (on
Linux) or a watching thread (elsewhere) does it instead, so no region ever outlives its supervisor.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading

__all__ = ["die_with"]

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def die_with(parent: int) -> None:
    """Arranges that this process is killed when the process `parent`, which must be its parent, has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=watch, args=(parent,), daemon=True, name="parent-watch").start()
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), signal.SIGKILL)


def watch(parent: int) -> None:
    paused = threading.Event()
    while os.getppid() == parent:
        paused.wait(1.0)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parent, module, *arguments = sys.argv[1:]
    die_with(int(parent))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
