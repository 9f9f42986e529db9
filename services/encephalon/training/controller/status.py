"""How a run goes, for people and for metrics: put together from what engine, desk and shards know."""

from __future__ import annotations

from statistics import median

from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.training.controller.engine import Engine
from encephalon.training.controller.group import Seat
from encephalon.training.controller.members import Worker

__all__ = ["status_of"]


def status_of(engine: Engine) -> pb.RunStatus:
    state, line, settings = engine.record.state, engine.lineage, engine.settings
    status = pb.RunStatus(
        run=settings.run,
        state=state.state,
        sentence=engine.sentence,
        epochs=settings.epochs,
        checkpoint_version=engine.checkpoints.snapshot.version,
        checkpoint_problem=engine.checkpoints.problem or engine.record.problem,
        recoveries=engine.recoveries + engine.desk.lost,
        seconds=engine.elapsed,
        workers=_workers(engine),
        shards=[_shard(seat) for seat in engine.group.seats],
        made=state.made,
        test=state.test if state.HasField("test") else None,
    )
    if line is not None:
        status.epoch = min(line.epoch.number, settings.epochs)
        status.version, status.samples, status.bytes = line.version, line.samples, line.moved
        status.samples_of_epoch, status.done_of_epoch = line.epoch.samples, line.epoch.done
        status.evaluations.extend(line.evaluations)
        status.samples_per_second = line.pace.value
        if line.last is not None:
            status.last.CopyFrom(line.last)
    return status


def _workers(engine: Engine) -> list[pb.WorkerStatus]:
    workers = list(engine.desk.members)
    middle = median([w.compute_seconds for w in workers if w.live and w.compute_seconds] or [0.0])
    return [_worker(worker, middle) for worker in workers]


def _worker(worker: Worker, middle: float) -> pb.WorkerStatus:
    seconds = worker.compute_seconds
    return pb.WorkerStatus(
        worker=worker.name,
        host=worker.host,
        state=worker.state,
        share=worker.share,
        samples_per_second=worker.share / seconds if seconds else 0.0,
        samples=worker.samples,
        sent_bytes=worker.sent_bytes,
        received_bytes=worker.received_bytes,
        slowness=seconds / middle if middle else 0.0,
    )


def _shard(seat: Seat) -> pb.ShardStatus:
    return pb.ShardStatus(
        shard=seat.shard,
        address=seat.seen.data_address,
        version=seat.seen.version,
        lost=seat.away_s > 0,
        held_bytes=seat.seen.held_bytes,
    )
