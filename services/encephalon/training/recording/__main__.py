"""`python -m encephalon.training.recording --run RUN --state URL --objects URL --namespace NS --folder DIR`

The control node, which loads no torch, starts it when a run has ended. Prints one JSON object: what was made, or why
nothing was. Safe to repeat.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from encephalon.core import logs
from encephalon.core.errors import EncephalonError, InvalidInput
from encephalon.core.settings import PREFIX
from encephalon.state import open_key_value, open_objects

STATE = "sqlite:///PATH or etcd://HOST:PORT"
OBJECTS = "folder:///PATH or minio://ACCESS:SECRET@HOST:PORT/BUCKET"


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    logs.configure(level="WARNING")
    try:
        made = asyncio.run(finished(options))
    except EncephalonError as error:
        sys.stdout.write(json.dumps({"error": {"reason": error.reason, "message": error.message}}) + "\n")
        return 1
    sys.stdout.write(json.dumps({"made": made}) + "\n")
    return 0


async def finished(options: argparse.Namespace) -> dict[str, str]:
    from encephalon.training.recording.finish import finish

    async with open_key_value(options.state) as key_value, open_objects(options.objects) as objects:
        return await finish(
            key_value,
            objects,
            namespace=options.namespace,
            run=options.run,
            folder=options.folder,
            history=lines(options.history),
        )


def lines(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"the history {path} cannot be read: {error.strerror}", path=path) from error


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m encephalon.training.recording", description=__doc__)
    result.add_argument("--run", required=True, help="name of the run")
    result.add_argument("--namespace", default="default", help="in which the run lies (default %(default)s)")
    for name, what in (("state", STATE), ("objects", OBJECTS)):
        variable = f"{PREFIX}{name.upper()}"
        given = os.environ.get(variable)
        result.add_argument(f"--{name}", default=given, required=given is None, help=f"{what} (or {variable})")
    result.add_argument("--folder", type=Path, required=True, help="where pictures and TensorBoard's files are written")
    result.add_argument("--history", type=Path, help="a file in place of the history that the run's state names")
    return result


if __name__ == "__main__":
    # Read by torch's libraries when they are loaded: nothing here is worth threads that wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
