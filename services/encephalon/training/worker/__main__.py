"""`python -m encephalon.training.worker --run RUN --worker NAME --state URL --objects URL`."""

from __future__ import annotations

import sys

from encephalon.core import logs
from encephalon.core.serving import run_service
from encephalon.training.worker.settings import WorkerSettings


def main() -> int:
    settings = WorkerSettings.read_or_exit(program="python -m encephalon.training.worker")
    logs.configure(level=settings.log_level, service="worker", run=settings.run, worker=settings.worker)
    from encephalon.training.worker.service import serve  # torch takes seconds to load; --help need not wait for it

    return run_service(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
