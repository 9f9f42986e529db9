"""What a control node shows to Prometheus."""

from __future__ import annotations

from encephalon.core.metrics import Gauge
from encephalon.training.controller.engine import Engine

__all__ = ["show", "show_share"]

RUN = ("run",)
STEPS = Gauge("encephalon_training_version", "Updates that were decided.", RUN)
EPOCH = Gauge("encephalon_training_epoch", "Epoch, counted from 0.", RUN)
SAMPLES = Gauge("encephalon_training_samples", "Samples that were learned from.", RUN)
PACE = Gauge("encephalon_training_samples_per_second", "Over the last ten seconds.", RUN)
LOSS = Gauge("encephalon_training_loss", "Mean per sample of the last update.", RUN)
NORM = Gauge("encephalon_training_gradient_norm", "Of the last update, before clipping.", RUN)
BYTES = Gauge("encephalon_training_bytes", "Bytes of gradients and parameters that workers moved.", RUN)
WORKERS = Gauge("encephalon_training_workers", "Workers that are there.", RUN)
AWAY = Gauge("encephalon_training_shards_away", "Shards that do not answer.", RUN)
RECOVERIES = Gauge("encephalon_training_recoveries", "Workers and shards lost, returns of the control node.", RUN)
AGE = Gauge("encephalon_training_checkpoint_age_seconds", "Since the last complete checkpoint.", RUN)
BEHIND = Gauge("encephalon_training_checkpoint_updates", "Updates since the last complete checkpoint.", RUN)
FAILING = Gauge("encephalon_training_checkpoint_failing", "1 while checkpoints cannot be written.", RUN)
SHARE = Gauge("encephalon_training_share", "Samples of a worker's last share.", (*RUN, "worker"))


def show(engine: Engine) -> None:
    run = engine.settings.run

    def last(field: str) -> float:
        line = engine.lineage
        return float(getattr(line.last, field)) if line is not None and line.last is not None else 0.0

    STEPS.show(run, read=lambda: engine.lineage.version if engine.lineage else 0)
    EPOCH.show(run, read=lambda: engine.lineage.epoch.number if engine.lineage else 0)
    SAMPLES.show(run, read=lambda: engine.lineage.samples if engine.lineage else 0)
    PACE.show(run, read=lambda: engine.lineage.pace.value if engine.lineage else 0)
    LOSS.show(run, read=lambda: last("loss"))
    NORM.show(run, read=lambda: last("gradient_norm"))
    BYTES.show(run, read=lambda: engine.lineage.moved if engine.lineage else 0)
    WORKERS.show(run, read=lambda: len(engine.desk.members.present))
    AWAY.show(run, read=lambda: len(engine.group.away))
    RECOVERIES.show(run, read=lambda: engine.recoveries + engine.desk.lost)
    AGE.show(run, read=lambda: engine.checkpoints.age_s)
    BEHIND.show(run, read=lambda: engine.behind)
    FAILING.show(run, read=lambda: float(bool(engine.checkpoints.problem or engine.record.problem)))


def show_share(engine: Engine, worker: str) -> None:
    """Once for every worker that joins."""

    def share() -> float:
        member = engine.desk.members.get(worker)
        return member.share if member is not None and member.live else 0

    SHARE.show(engine.settings.run, worker, read=share)
