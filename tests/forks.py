"""Many short-lived processes, each forked from one that has everything imported: tens of milliseconds instead of a
second.

    async with forks("tests.chaos.library_work") as forked:
        status = await forked("write", {"seed": 7})     # library_work.write(seed=7); 0, or -9 when it was killed

A job is a function of the module, plain or async. What it raises goes to standard error and gives 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

__all__ = ["Forked", "forks"]

Forked = Callable[[str, Mapping[str, Any]], Awaitable[int]]


@contextlib.asynccontextmanager
async def forks(module: str) -> AsyncIterator[Forked]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-m", "tests.forks", module, stdin=-1, stdout=-1
    )
    assert process.stdin is not None
    assert process.stdout is not None
    commands, answers = process.stdin, process.stdout
    waiting: dict[int, asyncio.Future[int]] = {}

    async def run(job: str, arguments: Mapping[str, Any]) -> int:
        number = len(numbers)
        numbers.append(number)
        waiting[number] = asyncio.get_running_loop().create_future()
        commands.write(json.dumps([number, job, arguments]).encode() + b"\n")
        return await waiting[number]

    async def read() -> None:
        try:
            while line := await answers.readline():
                number, status = json.loads(line)
                waiting.pop(number).set_result(status)
        finally:
            for future in waiting.values():
                future.set_exception(RuntimeError("the process that forks has ended"))

    numbers: list[int] = []
    reading = asyncio.create_task(read())
    try:
        yield run
    finally:
        commands.close()
        await process.wait()
        await reading
        await commands.wait_closed()


def serve(module: str) -> None:
    """Forks for each line on standard input, and says on standard output how each child ended."""
    # What a job prints, a log line perhaps, must not come between the answers.
    answers = os.dup(1)
    os.dup2(2, 1)
    jobs = importlib.import_module(module)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    children: dict[int, int] = {}
    pending, ended = b"", False
    while children or not ended:
        ready, _, _ = select.select([woken] if ended else [0, woken], [], [])
        if 0 in ready:
            data = os.read(0, 65536)
            ended = not data
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                number, job, arguments = json.loads(line)
                if (child := os.fork()) == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    run(getattr(jobs, job), arguments)
                children[child] = number
        if woken in ready:
            os.read(woken, 4096)
            reap(children, answers)


def run(job: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    status = 1
    try:
        result = job(**arguments)
        if inspect.iscoroutine(result):
            asyncio.run(result)
        status = 0
    except BaseException:  # noqa: BLE001 -- a child must end here, whatever it was
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def reap(children: dict[int, int], answers: int) -> None:
    for child in list(children):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            answer = [children.pop(child), os.waitstatus_to_exitcode(status)]
            os.write(answers, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    serve(sys.argv[1])
