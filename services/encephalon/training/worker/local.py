"""The whole brain in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.api.training.v1 import training_pb2 as training_pb
from encephalon.core.errors import Cancelled, FailedPrecondition
from encephalon.learning.brain import LearningBrain
from encephalon.learning.client import Client, PullClient, PushClient
from encephalon.learning.losses import losses
from encephalon.learning.overlap import Overlap
from encephalon.learning.samples import Batch
from encephalon.learning.settings import LearningSettings
from encephalon.training.worker.computation import Outcome

__all__ = ["Local"]

JUDGED_AT_ONCE = 256
"""Rows of an evaluation in one forward pass, so that it needs no more memory than training."""


class Local:
    """`at_once`: most rows of a training share in one forward and backward pass; what is more goes through in parts,
    whose gradients are added before they are sent."""

    def __init__(
        self,
        brain: LearningBrain,
        settings: LearningSettings,
        client: Callable[[pb.Layout], Client],
        *,
        at_once: int | None = None,
    ) -> None:
        self._brain, self._settings, self._client_of, self._at_once = brain, settings, client, at_once
        self._learned = brain.learned()
        self._state = brain.state()
        self._overlap = Overlap(brain, self._learned, self._check)
        self._client: Client | None = None
        self._layout = pb.Layout()
        self._dropped = False
        self._ways: list[PullClient | PushClient] = []
        self._sent = self._received = 0

    def begin(self, layout: pb.Layout) -> None:
        if self._client is None or layout != self._layout:
            self.close()
            self._client, self._layout = self._client_of(layout), layout

    def train(self, share: training_pb.Share, batch: Batch) -> Outcome:
        self._brain.train()
        torch.manual_seed(share.seed % (1 << 63))
        for each in self._learned:
            each.tensor.grad = None
        with self._connected(share) as client:
            pull, push = self._opened(client, share)
            loss, correct, seconds = self._passes(batch, share.divisor, pull, push)
            pull.wait_all()
            push.finish()
            return self._told(client, batch, loss, correct, seconds)

    def evaluate(self, share: training_pb.Share, batch: Batch) -> Outcome:
        self._brain.eval()
        with self._connected(share) as client, torch.no_grad():
            pull = client.pulling(share, self._state)
            self._ways.append(pull)
            pull.wait_all()
            began, loss, correct = time.perf_counter(), 0.0, dict[str, int]()
            for part in _parts(batch, self._at_once or JUDGED_AT_ONCE):
                self._check()
                total, right = self._losses(part)
                loss += float(total)
                _add(correct, right)
            return self._told(client, batch, loss, correct, time.perf_counter() - began)

    def drop(self) -> None:
        self._dropped = True
        for way in list(self._ways):
            way.abort()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _passes(
        self, batch: Batch, divisor: int, pull: PullClient, push: PushClient
    ) -> tuple[float, dict[str, int], float]:
        loss, correct, overlap = 0.0, dict[str, int](), self._overlap
        began = time.perf_counter()
        overlap.begin(pull, push)
        parts = list(_parts(batch, self._at_once))
        for part in parts:
            total, right = self._losses(part)
            loss += float(total.detach())
            _add(correct, right)
            if part is parts[-1]:
                overlap.last()
            if total.requires_grad:
                (total / divisor).backward()  # type: ignore[no-untyped-call]
        seconds = time.perf_counter() - began - overlap.waited_s
        overlap.end(len(batch) / divisor)
        return loss, correct, seconds

    def _losses(self, part: Batch) -> tuple[Tensor, dict[str, int]]:
        return losses(self._brain(part.inputs), part.labels, self._settings, self._brain.routing.targets)

    @contextmanager
    def _connected(self, share: training_pb.Share) -> Iterator[Client]:
        """What is on its way is stopped when something goes wrong."""
        client = self._client
        if client is None:
            raise FailedPrecondition("a share came before this worker had joined")
        self._dropped = False
        self._sent, self._received = client.sent_bytes, client.received_bytes
        try:
            client.connect(share.shards)
            yield client
        except BaseException:
            for way in self._ways:
                way.abort()
            self._overlap.abandon()
            raise
        finally:
            self._ways = []

    def _opened(self, client: Client, share: training_pb.Share) -> tuple[PullClient, PushClient]:
        pull = client.pulling(share, self._state)
        self._ways.append(pull)
        push = client.pushing(share)
        self._ways.append(push)
        self._check()
        return pull, push

    def _told(self, client: Client, batch: Batch, loss: float, correct: dict[str, int], seconds: float) -> Outcome:
        sent, received = client.sent_bytes - self._sent, client.received_bytes - self._received
        return Outcome(len(batch), loss, correct, seconds, sent, received)

    def _check(self) -> None:
        if self._dropped:
            raise Cancelled("the share was taken away from this worker")


def _parts(batch: Batch, most: int | None) -> Iterator[Batch]:
    rows = len(batch)
    step = rows if most is None else most
    for start in range(0, rows, step):
        yield batch if step >= rows else batch.part(start, min(start + step, rows))


def _add(sums: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        sums[name] = sums.get(name, 0) + count
