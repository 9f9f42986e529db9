"""`python -m encephalon.region.learning --run RUN --worker WORKER --region REGION --state URL --objects URL`."""

from __future__ import annotations

import os
import sys

from encephalon.core import logs
from encephalon.core.serving import run_service
from encephalon.region.learning.settings import LearningRegionSettings


def main() -> int:
    settings = LearningRegionSettings.read_or_exit(program="python -m encephalon.region.learning")
    logs.configure(level=settings.log_level, region=settings.region, run=settings.run, worker=settings.worker)
    if settings.threads is not None:  # read by torch's libraries when they are loaded
        os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    from encephalon.region.learning.lifetime import serve

    return run_service(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
