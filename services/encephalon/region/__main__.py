"""`python -m encephalon.region --brain BRAIN.yaml --region NAME`."""

from __future__ import annotations

import os
import sys

from encephalon.core import logs
from encephalon.core.serving import run_service
from encephalon.region.service import serve
from encephalon.region.settings import RegionSettings


def main() -> int:
    settings = RegionSettings.read_or_exit(program="python -m encephalon.region")
    logs.configure(level=settings.log_level, region=settings.region)
    if settings.threads is not None:  # read by torch's libraries when they are loaded
        os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads))
    return run_service(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
