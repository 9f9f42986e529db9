"""A run of two workers and two shards over two epochs of 100 samples, as a control node would tell it."""

from __future__ import annotations

from encephalon.api.training.v1.training_pb2 import (
    Evaluation,
    RunState,
    RunStatus,
    ShardStatus,
    StepMetrics,
    WorkerStatus,
)

__all__ = ["evaluation", "starting", "status", "statuses"]

STEPS_PER_EPOCH, BATCH = 5, 20


def starting(run: str) -> RunStatus:
    return RunStatus(run=run, state=RunState.STATE_STARTING, sentence="waits for workers", epochs=2)


def status(run: str, version: int, epochs: int = 2) -> RunStatus:
    """After so many updates."""
    epoch = min(version // STEPS_PER_EPOCH, epochs - 1)
    done = version * BATCH - epoch * STEPS_PER_EPOCH * BATCH
    return RunStatus(
        run=run,
        state=RunState.STATE_RUNNING,
        sentence=f"waits for worker-{version % 2}",
        epoch=epoch,
        epochs=epochs,
        version=version,
        samples=version * BATCH,
        samples_of_epoch=STEPS_PER_EPOCH * BATCH,
        done_of_epoch=done,
        samples_per_second=250.0,
        last=StepMetrics(
            version=version, epoch=epoch, samples=BATCH, loss=2.0 / version, seconds=0.08, gradient_norm=1.5
        )
        if version
        else None,
        evaluations=[evaluation(each) for each in range(version // STEPS_PER_EPOCH)],
        workers=[
            worker("worker-0", 15, 187.5, version * 15),
            worker("worker-1", 5, 62.5, version * 5, slowness=2.4),
        ],
        shards=[
            ShardStatus(shard=0, address="127.0.0.1:1", version=version, held_bytes=1 << 20),
            ShardStatus(shard=1, address="127.0.0.1:2", version=version, held_bytes=1 << 20),
        ],
        seconds=version * 0.08,
        bytes=version * 2_000_000,
    )


def worker(name: str, share: int, speed: float, samples: int, slowness: float = 1.0) -> WorkerStatus:
    return WorkerStatus(
        worker=name,
        state=WorkerStatus.STATE_WORKING,
        share=share,
        samples_per_second=speed,
        samples=samples,
        sent_bytes=samples * 50_000,
        received_bytes=samples * 50_000,
        slowness=slowness,
    )


def evaluation(epoch: int, purpose: str = "validation") -> Evaluation:
    return Evaluation(
        version=(epoch + 1) * STEPS_PER_EPOCH,
        epoch=epoch,
        purpose=purpose,
        samples=20,
        loss=1.0 / (epoch + 1),
        accuracy={"probabilities": 0.5 + 0.25 * epoch},
    )


def statuses(run: str, epochs: int = 2) -> list[RunStatus]:
    """From the first to the last update."""
    return [status(run, version, epochs) for version in range(epochs * STEPS_PER_EPOCH + 1)]
