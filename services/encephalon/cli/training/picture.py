"""How a run goes, drawn for a terminal of 80 characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from encephalon.api.training.v1.training_pb2 import RunState, RunStatus, ShardStatus, WorkerStatus
from encephalon.cli.library.quantities import count, figure, size
from encephalon.cli.training.events import headed, percent

__all__ = ["Picture"]

BAR, WIDE = 14, 28
SLOW = 1.25
"""Times the median by which a worker is called slow."""
SHOWN = 3
LASTING_S = 1.0
MOST_WORKERS = 16
"""A bar each; of more, the rest is counted."""


class Picture:
    """Knows where each worker was when the epoch began, to tell how far it is in it, and since when the run waits."""

    def __init__(self, *, bars: bool = True) -> None:
        """bars: False for a single look, which counts the samples of the whole run."""
        self._bars = bars
        self._epoch = -1
        self._begun: dict[str, int] = {}
        self._sentence, self._since = "", 0.0

    def drawn(self, status: RunStatus) -> RenderableType:
        if status.epoch != self._epoch and status.epoch < status.epochs:
            self._epoch = status.epoch
            self._begun = {worker.worker: worker.samples for worker in status.workers}
        parts: list[RenderableType] = [headline(status), Text("")] if status.samples_of_epoch else []
        if status.workers:
            parts += [self.workers(status), Text("")]
        if status.shards:
            parts += [shards(status), Text("")]
        if status.evaluations:
            parts += [evaluations(status), Text("")]
        return Group(*parts, *notes(status, self._lasting(status)))

    def _lasting(self, status: RunStatus) -> str:
        """What the run waits for, when it has for a while: while it learns, that changes many times a second."""
        if status.sentence != self._sentence:
            self._sentence, self._since = status.sentence, status.seconds
        short = status.state == RunState.STATE_RUNNING and status.seconds - self._since < LASTING_S
        return "" if short else status.sentence

    def workers(self, status: RunStatus) -> Table:
        drawn = table(
            "worker", "", "samples", "share", "samples/s", "moved", "", right=("samples", "share", "samples/s", "moved")
        )
        everything = sum(worker.share for worker in status.workers) or 1
        for worker in status.workers[:MOST_WORKERS]:
            begun = self._begun.setdefault(worker.worker, worker.samples) if self._bars else 0
            done = max(0, worker.samples - begun)
            expected = max(1, round(status.samples_of_epoch * worker.share / everything))
            drawn.add_row(
                worker.worker,
                bar(min(done, expected), expected) if self._bars else "",
                f"{done}",
                f"{worker.share}",
                figure(worker.samples_per_second),
                size(worker.sent_bytes + worker.received_bytes),
                standing(worker),
            )
        if (more := len(status.workers) - MOST_WORKERS) > 0:
            drawn.add_row(f"and {more} more")
        return drawn


def headline(status: RunStatus) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    of = max(1, status.samples_of_epoch)
    done = of if status.epoch >= status.epochs else min(status.done_of_epoch, of)
    grid.add_row(
        Text(f"epoch {min(status.epoch + 1, status.epochs)}/{status.epochs}", style="bold"),
        bar(done, of, WIDE),
        f"{done}/{of}",
        str(timedelta(seconds=round(status.seconds))),
    )
    loss = f", loss {figure(status.last.loss)}" if status.HasField("last") else ""
    return Group(grid, Text(f"step {status.version}{loss}, {figure(status.samples_per_second)} samples/s"))


def shards(status: RunStatus) -> Table:
    drawn = table("shard", "step", "holds", "", right=("step", "holds"))
    for shard in status.shards[:MOST_WORKERS]:
        drawn.add_row(f"shard-{shard.shard}", str(shard.version), size(shard.held_bytes), shard_state(shard))
    return drawn


def shard_state(shard: ShardStatus) -> Text:
    return Text("lost", style="red") if shard.lost else Text("")


def evaluations(status: RunStatus) -> Table:
    outputs = sorted({output for found in status.evaluations for output in found.accuracy})
    headings = headed(outputs)
    drawn = table("epoch", "judged on", "loss", *headings, right=("loss", *headings))
    for found in status.evaluations[-SHOWN:]:
        right = (percent(found.accuracy[output]) if output in found.accuracy else "" for output in outputs)
        drawn.add_row(str(found.epoch + 1), found.purpose, figure(found.loss), *right)
    return drawn


def standing(worker: WorkerStatus) -> Text:
    """What is to be said of a worker that does not just work."""
    if worker.state == WorkerStatus.STATE_LOST:
        return Text("lost", style="red")
    if worker.state == WorkerStatus.STATE_LEFT:
        return Text("has left", style="yellow")
    if worker.slowness >= SLOW:
        return Text(f"{worker.slowness:.1f}x slower", style="yellow")
    return Text("")


def notes(status: RunStatus, waiting: str) -> Iterator[Text]:
    parts = [
        waiting,
        f"last checkpoint at step {status.checkpoint_version}" if status.checkpoint_version else "",
        f"{size(status.bytes)} moved" if status.bytes else "",
        f"went on after {count(status.recoveries, 'interruption')}" if status.recoveries else "",
    ]
    yield Text("; ".join(part for part in parts if part), style="dim")
    if status.checkpoint_problem:
        yield Text(f"no checkpoint could be written: {status.checkpoint_problem}", style="red")


def bar(done: float, of: float, width: int = BAR) -> ProgressBar:
    return ProgressBar(total=of, completed=done, width=width)


def table(*headings: str, right: Sequence[str] = ()) -> Table:
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        drawn.add_column(heading, overflow="fold", justify="right" if heading in right else "left")
    return drawn
