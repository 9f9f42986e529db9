"""`python -m encephalon.training --run RUN --state URL --objects URL --folder FOLDER`: the control node of a run.

Ends with 0 when the run has succeeded or was stopped, and with 1, and a sentence, when it has failed.
"""

from __future__ import annotations

import sys

from encephalon.core import logs
from encephalon.core.metrics import metrics_served
from encephalon.core.serving import run_service
from encephalon.state import open_key_value, open_objects
from encephalon.training.controller.recording import Recording
from encephalon.training.leading import lead
from encephalon.training.settings import ControlSettings


async def serve(settings: ControlSettings) -> None:
    async with (
        open_key_value(settings.state) as store,
        open_objects(settings.objects) as objects,
        metrics_served(settings.metrics_port),
    ):
        await lead(settings, store, objects, Recording(settings))


def main() -> int:
    settings = ControlSettings.read_or_exit(program="python -m encephalon.training")
    logs.configure(level=settings.log_level, service="training", run=settings.run)
    return run_service(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
