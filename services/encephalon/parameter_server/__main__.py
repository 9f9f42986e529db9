"""`python -m encephalon.parameter_server --shard 0 --run RUN --state URL --objects URL --folder PATH`."""

from __future__ import annotations

import os
import sys

from encephalon.core import logs
from encephalon.core.serving import run_service
from encephalon.parameter_server.settings import ShardSettings


def main() -> int:
    settings = ShardSettings.read_or_exit(program="python -m encephalon.parameter_server")
    logs.configure(level=settings.log_level, service="parameter_server", shard=settings.shard, run=settings.run)
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads))  # read by torch's libraries when they are loaded
    from encephalon.parameter_server.lifetime import serve

    return run_service(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
