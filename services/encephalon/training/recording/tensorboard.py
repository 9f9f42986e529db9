"""The history as an event file that TensorBoard shows. TensorFlow is not needed, and not imported."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Final

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from encephalon.api.training.v1.training_pb2 import Evaluation, StepMetrics
from encephalon.training.recording.history import History

__all__ = ["events"]

VERSION: Final = "brain.Event:2"
"""The first record of every event file."""


def events(history: History, began: float) -> tuple[str, bytes]:
    """Name and bytes of the event file. began: seconds since 1970. Equal histories give equal bytes.

    A step is a version of the parameters; shares are parts of the samples of an update, 0 to 1.
    """
    file = io.BytesIO()
    writer = RecordWriter(file)
    writer.write(Event(wall_time=began, file_version=VERSION).SerializeToString())
    for line in history:
        scalars = dict(_judged(line) if isinstance(line, Evaluation) else _step(line))
        event = Event(wall_time=began + line.at_seconds, step=line.version, summary=_summary(scalars))
        writer.write(event.SerializeToString())
    return f"events.out.tfevents.{int(began)}.encephalon", file.getvalue()


def _step(step: StepMetrics) -> Iterator[tuple[str, float]]:
    yield "loss/train", step.loss
    yield "optimizer/gradient_norm", step.gradient_norm
    yield "optimizer/learning_rate", step.learning_rate
    yield "optimizer/skipped", float(step.skipped)
    yield "speed/step_seconds", step.seconds
    if step.seconds > 0:
        yield "speed/samples_per_second", step.samples / step.seconds
    total = sum(step.shares.values())
    for worker, share in sorted(step.shares.items()):
        yield f"shares/{worker}", share / max(total, 1)
    for worker, seconds in sorted(step.compute_seconds.items()):
        yield f"compute_seconds/{worker}", seconds


def _judged(found: Evaluation) -> Iterator[tuple[str, float]]:
    yield f"loss/{found.purpose}", found.loss
    for output, accuracy in sorted(found.accuracy.items()):
        yield f"accuracy/{found.purpose}/{output}", accuracy


def _summary(scalars: Mapping[str, float]) -> Summary:
    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()])
