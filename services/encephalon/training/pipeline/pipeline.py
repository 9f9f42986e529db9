"""The whole brain in processes of its own, one per region: the `Computation` of a worker that drives a pipeline."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final

import torch
from torch import Tensor

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.api.learning.v1 import learning_pb2 as pb
from encephalon.api.parameter_server.v1 import parameter_server_pb2 as parameter_pb
from encephalon.api.training.v1 import training_pb2 as training_pb
from encephalon.core.blocking import blocking
from encephalon.core.errors import Cancelled, EncephalonError, Unavailable
from encephalon.learning.activations import decode, encode
from encephalon.learning.brain import LearningBrain
from encephalon.learning.losses import losses
from encephalon.learning.samples import Batch
from encephalon.training.pipeline.flow import Flow, Send
from encephalon.training.pipeline.links import opened_links
from encephalon.training.pipeline.patience import LOOK_S, Patience
from encephalon.training.pipeline.places import Places
from encephalon.training.pipeline.stages import planned_stages
from encephalon.training.runs import RunSettings
from encephalon.training.worker.computation import Outcome

__all__ = ["Pipeline"]

JUDGED_AT_ONCE: Final = 64
"""Least rows of a micro-batch of an evaluation, which keeps nothing for a backward pass."""
FIND_S: Final = 30.0
"""For a region to be announced; a process that starts loads torch first."""
PREPARE_S: Final = 60.0
"""For a region to load its network."""
STALL_S: Final = 10.0
"""As chunks of gradients have it; README, order of time-outs."""
COMPUTE_S: Final = 120.0


class Pipeline:
    """`brain` tells what goes where; its own tensors are neither computed with nor changed."""

    def __init__(
        self,
        brain: LearningBrain,
        settings: RunSettings,
        places: Places,
        *,
        find_s: float = FIND_S,
        stall_s: float = STALL_S,
        compute_s: float = COMPUTE_S,
    ) -> None:
        """stall_s: without a sign of life from a region; compute_s: for one of its passes."""
        self._brain, self._settings, self._places = brain, settings, places
        self._find_s, self._stall_s, self._compute_s = find_s, stall_s, compute_s
        self._stages = planned_stages(brain.routing, brain.regions)
        self._layout = parameter_pb.Layout()
        self._prepared: dict[str, str] = {}
        """Instance by region."""
        self._dropped = False
        self._stack = ExitStack()
        self._links: Any = self._stack.enter_context(blocking(opened_links()))

    def begin(self, layout: parameter_pb.Layout) -> None:
        if layout != self._layout:
            self._layout.CopyFrom(layout)
            self._prepared.clear()

    def train(self, share: training_pb.Share, batch: Batch) -> Outcome:
        return self._computed(share, batch, self._settings.micro_batch, share.divisor)

    def evaluate(self, share: training_pb.Share, batch: Batch) -> Outcome:
        return self._computed(share, batch, max(self._settings.micro_batch, JUDGED_AT_ONCE), None)

    def drop(self) -> None:
        self._dropped = True

    def close(self) -> None:
        self._stack.close()

    def _computed(self, share: training_pb.Share, batch: Batch, rows: int, divisor: int | None) -> Outcome:
        self._dropped = False
        parts = [batch.part(at, min(at + rows, len(batch))) for at in range(0, len(batch), rows)]
        flow = Flow(self._brain.routing, self._stages, parts, self._lose, divisor)
        instances = self._places.of(list(self._stages), self._find_s)
        self._links.keep([each.address for each in instances.values()])
        try:
            self._prepare(instances)
            for name, instance in instances.items():
                self._links.open(name, instance.address, self._beginning(share, name, len(parts)))
            told = self._flowing(flow)
        except EncephalonError as error:
            self._failed(instances, error)
            raise
        finally:
            self._links.end()
        return Outcome(
            samples=len(batch),
            loss=flow.loss,
            correct=flow.correct,
            compute_seconds=max(each.compute_seconds for each in told.values()),
            sent_bytes=sum(each.sent_bytes for each in told.values()),
            received_bytes=sum(each.received_bytes for each in told.values()),
        )

    def _flowing(self, flow: Flow) -> dict[str, pb.Done]:
        """Until every region has said that it is done."""
        told: dict[str, pb.Done] = {}
        patience = Patience(self._stages, stall_s=self._stall_s, compute_s=self._compute_s)
        looked = time.monotonic()
        while len(told) < len(self._stages):
            if messages := [_message(send) for send in flow.due()]:
                self._links.send(messages)
            for region, answer in self._links.next(LOOK_S):
                self._take(flow, patience, told, region, answer)
            if self._dropped:
                raise Cancelled("the share was taken away from this worker")
            now = time.monotonic()
            # A region that has answered everything still owes its last word.
            patience.looked(now - looked, [name for name in self._stages if flow.owes(name) or flow.done])
            looked = now
        return told

    def _take(
        self,
        flow: Flow,
        patience: Patience,
        told: dict[str, pb.Done],
        region: str,
        answer: pb.LearnResponse | EncephalonError,
    ) -> None:
        if isinstance(answer, EncephalonError):
            raise _named(region, answer)
        which = answer.WhichOneof("what")
        patience.heard(region, beat=which == "beat")
        if which == "done":
            told[region] = answer.done
            patience.finished(region)
        elif which == "forward":
            flow.came(region, "forward", answer.forward.micro_batch, decode(answer.forward.tensors))
        elif which == "backward":
            flow.came(region, "backward", answer.backward.micro_batch, decode(answer.backward.tensors))

    def _beginning(self, share: training_pb.Share, name: str, micro_batches: int) -> pb.Begin:
        stage = self._stages[name]
        return pb.Begin(
            share=share,
            micro_batches=micro_batches,
            in_flight=stage.in_flight,
            input_gradients=stage.input_gradients,
        )

    def _prepare(self, instances: Mapping[str, Instance]) -> None:
        """Those that are new: at the beginning, and when a process was started again."""
        for name, instance in instances.items():
            if self._dropped:
                raise Cancelled("the share was taken away from this worker")
            if self._prepared.get(name) != instance.id:
                try:
                    self._links.prepare(name, instance.address, self._preparation(name), PREPARE_S)
                except EncephalonError as error:
                    raise _named(name, error) from error
                self._prepared[name] = instance.id

    def _preparation(self, name: str) -> pb.PrepareRequest:
        settings, region = self._settings, self._brain.regions[name]
        return pb.PrepareRequest(
            run=settings.run,
            region=name,
            manifest=self._brain.brain.to_json(),
            trainable=region.trainable,
            from_scratch=settings.from_scratch,
            seed=settings.seed,
            bfloat16=settings.precision == "bf16",
            recompute=settings.recompute,
            layout=self._layout,
            wire=settings.wire,
            top_k=settings.top_k,
            library=settings.library,
        )

    def _failed(self, instances: Mapping[str, Instance], error: EncephalonError) -> None:
        """What failed is looked at anew: another instance may be there, or the same one without its network."""
        name = error.details.get("region", "")
        if name in instances and not isinstance(error, Cancelled):
            self._prepared.pop(name, None)
            if isinstance(error, Unavailable):
                self._places.failed(instances[name].id)

    def _lose(self, outputs: Mapping[str, Tensor], labels: Tensor) -> tuple[Tensor, dict[str, int]]:
        with torch.enable_grad():
            return losses(outputs, labels, self._settings, self._brain.routing.targets)


def _message(send: Send) -> tuple[str, bytes]:
    found = pb.Pass(micro_batch=send.micro_batch, tensors=encode(send.tensors))
    request = pb.LearnRequest(forward=found) if send.direction == "forward" else pb.LearnRequest(backward=found)
    return send.region, request.SerializeToString()


def _named(region: str, error: EncephalonError) -> EncephalonError:
    """The same cause in a sentence that names the region. One that was cancelled there may be asked again: this driver
    did not do it."""
    kind = Unavailable if isinstance(error, Cancelled) else type(error)
    return kind(f"region '{region}': {error.message}", **{**error.details, "region": region})
