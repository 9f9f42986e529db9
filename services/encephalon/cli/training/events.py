"""What has happened to a run between two statuses, a sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from encephalon.api.training.v1.training_pb2 import Evaluation, RunState, RunStatus, WorkerStatus
from encephalon.cli.library.quantities import figure

__all__ = ["done", "evaluated", "events", "headed", "percent"]

GONE = {WorkerStatus.STATE_LOST: "is lost; others get its share", WorkerStatus.STATE_LEFT: "has left"}


def events(before: RunStatus | None, now: RunStatus) -> Iterator[str]:
    """`before` is None for the first status; what it tells is then all new."""
    earlier = before or RunStatus()
    if now.version < earlier.version:
        yield f"back at step {now.version}, that of the last checkpoint"
    yield from beginnings(earlier, now)
    yield from workers(earlier, now)
    yield from shards(earlier, now)
    if earlier.state == RunState.STATE_RUNNING:  # a run that goes on has told before what it has behind it
        yield from epochs(earlier, now)
        yield from (evaluated(found) for found in now.evaluations[len(earlier.evaluations) :])
    if now.HasField("test") and not earlier.HasField("test"):
        yield evaluated(now.test)
    if now.checkpoint_problem and now.checkpoint_problem != earlier.checkpoint_problem:
        yield f"no checkpoint could be written, learning goes on: {now.checkpoint_problem}"
    if earlier.checkpoint_problem and not now.checkpoint_problem:
        yield f"checkpoints are written again, the last one of step {now.checkpoint_version}"


def beginnings(earlier: RunStatus, now: RunStatus) -> Iterator[str]:
    """What a run waits for while it learns changes many times a second, and is not told."""
    if now.state == RunState.STATE_STARTING and now.sentence and now.sentence != earlier.sentence:
        yield now.sentence
    elif now.state == RunState.STATE_RUNNING != earlier.state:
        yield "learns"


def workers(earlier: RunStatus, now: RunStatus) -> Iterator[str]:
    states = {worker.worker: worker.state for worker in earlier.workers}
    for worker in now.workers:
        was = states.get(worker.worker)
        if worker.state in GONE:
            if was != worker.state and was is not None:
                yield f"{worker.worker} {GONE[worker.state]}"
        elif was is None:
            yield f"{worker.worker} is there"
        elif was in GONE:
            yield f"{worker.worker} is back"


def shards(earlier: RunStatus, now: RunStatus) -> Iterator[str]:
    """One that has loaded nothing yet is not lost: it takes its time to begin."""
    there = {shard.shard for shard in earlier.shards if shard.held_bytes}
    lost = {shard.shard for shard in earlier.shards if shard.lost and shard.held_bytes}
    for shard in now.shards:
        if shard.lost and shard.shard in there - lost:
            yield f"shard-{shard.shard} is lost; the run waits for it"
        elif shard.shard in lost and not shard.lost:
            yield f"shard-{shard.shard} is back"


def epochs(earlier: RunStatus, now: RunStatus) -> Iterator[str]:
    """Those that have ended."""
    for epoch in range(done(earlier), done(now)):
        loss = f", loss {figure(now.last.loss)}" if now.HasField("last") else ""
        speed = f", {figure(now.samples_per_second)} samples/s" if now.samples_per_second else ""
        yield f"epoch {epoch + 1}/{now.epochs} done at step {now.version}{loss}{speed}"


def done(status: RunStatus) -> int:
    """Epochs that are done."""
    whole = bool(status.samples_of_epoch) and status.done_of_epoch >= status.samples_of_epoch
    return status.epoch + whole


def evaluated(found: Evaluation) -> str:
    accuracies = ", ".join(f"{output} {percent(value)}" for output, value in sorted(found.accuracy.items()))
    right = f", right: {accuracies}" if accuracies else ""
    return f"{found.purpose} after epoch {found.epoch + 1}: loss {figure(found.loss)}{right}"


def percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def headed(outputs: Iterable[str]) -> list[str]:
    """Names of outputs as headings, which break between words where there is little room."""
    return [output.replace("_", " ") for output in outputs]
