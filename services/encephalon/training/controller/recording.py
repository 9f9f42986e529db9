"""Keeps what a run has learned, in a process of its own, for that needs torch."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import Internal, Unavailable
from encephalon.core.settings import PREFIX
from encephalon.training.settings import ControlSettings

__all__ = ["Recording"]

LONGEST_S: Final = 600.0
"""To bring a few hundred MiB of weights into a library."""
MOST_BYTES: Final = 1 << 20
RETRYABLE: Final = ("Unavailable", "Overloaded", "Conflict")


class Recording:
    def __init__(self, settings: ControlSettings) -> None:
        self._settings = settings

    async def __call__(self, state: pb.RunState, history: bytes) -> Mapping[str, str]:
        """References by what they are. Unavailable when a store is away; Internal for everything else that fails."""
        with tempfile.NamedTemporaryFile(prefix="encephalon-history-") as file:
            await asyncio.to_thread(Path(file.name).write_bytes, history)
            return _made(*await self._output(file.name))

    async def _output(self, history: str) -> tuple[int, bytes]:
        process = self._started(history)
        try:
            async with asyncio.timeout(LONGEST_S):
                output, _ = await asyncio.to_thread(process.communicate)
        except TimeoutError:
            raise Unavailable(f"the run could not be recorded within {LONGEST_S:.0f} s") from None
        finally:
            process.kill()  # which ends the thread too; nothing happens to a process that has ended
            await asyncio.to_thread(process.wait)
        return process.returncode, output[:MOST_BYTES]

    def _started(self, history: str) -> subprocess.Popen[bytes]:
        """Not by the event loop: uvloop forks, and gRPC's handlers of fork() crash the child now and then.
        `subprocess` starts it with vfork(), which calls none."""
        settings = self._settings
        stores = {f"{PREFIX}STATE": settings.state, f"{PREFIX}OBJECTS": settings.objects}
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "encephalon.training.recording", "--run", settings.run),
                *("--namespace", settings.namespace, "--folder", str(settings.folder), "--history", history),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # The addresses of the stores may hold secrets, and arguments are public.
            env={**os.environ, **stores, "OMP_NUM_THREADS": "1"},
        )


def _made(code: int, output: bytes) -> Mapping[str, str]:
    try:
        told: dict[str, Any] = json.loads(output.splitlines()[-1])
        if code == 0:
            return {str(what): str(reference) for what, reference in told["made"].items()}
        failed = told["error"]
        kind = Unavailable if failed["reason"] in RETRYABLE else Internal
        sentence = f"the run has learned, but could not be recorded: {failed['message']}"
    except (IndexError, KeyError, TypeError, ValueError):
        raise Internal(
            f"the run has learned, but the process that records it ended with {code} and without an answer; "
            "its log says why; resume the run to try again"
        ) from None
    raise kind(sentence)
