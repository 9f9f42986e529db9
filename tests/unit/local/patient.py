"""A process for the tests of `local`: says that it runs, then obeys its argument."""

from __future__ import annotations

import signal
import sys
import threading

if __name__ == "__main__":
    print("running", flush=True)
    order = sys.argv[1]
    if order == "fail":
        sys.exit("there is no cake")
    if order == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.Event().wait()
