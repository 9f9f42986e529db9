"""The passes of one share through a region's network. Blocking: everything but `drop` is called in one thread."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from encephalon.api.learning.v1 import learning_pb2 as pb
from encephalon.api.training.v1 import training_pb2 as training_pb
from encephalon.core.errors import Cancelled
from encephalon.learning.activations import nbytes
from encephalon.learning.client import Client, PullClient, PushClient
from encephalon.learning.overlap import Overlap
from encephalon.learning.region import LearningRegion
from encephalon.region.learning.checking import check_gradients, check_inputs

__all__ = ["Stage"]


@dataclass(slots=True)
class Held:
    """A micro-batch that has gone forward and not yet backward."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    """With their graph, or without anything when they are computed again."""
    size: int


class Run:
    """One share. Made in the loop, so that it can be dropped before its turn comes."""

    def __init__(self, begin: pb.Begin) -> None:
        self.share, self.micro_batches = begin.share, begin.micro_batches
        self.wanted = frozenset(begin.input_gradients)
        self.training = begin.share.kind == training_pb.Share.KIND_TRAIN
        self._lock = threading.Lock()
        self._ways: list[PullClient | PushClient] = []
        self._dropped = False

    def check(self) -> None:
        if self._dropped:
            raise Cancelled("the share was dropped, or another one has taken its place")

    def watched(self, way: PullClient | PushClient) -> None:
        """From now on `drop` ends it too."""
        with self._lock:
            self._ways.append(way)
        if self._dropped:
            way.abort()
        self.check()

    def drop(self) -> None:
        """From any thread; whatever waits for parameters or receipts waits no longer. Twice is harmless."""
        self._dropped = True
        with self._lock:
            ways = list(self._ways)
        for way in ways:
            way.abort()


class Stage:
    """`parameters` is None for a region that does not learn. recompute: keep only inputs, and compute outputs again in
    the backward pass."""

    def __init__(self, region: LearningRegion, parameters: Client | None, *, recompute: bool = False) -> None:
        self.region = region
        self._parameters = parameters
        self._recompute = recompute
        self._learned = list(region.learned())
        self._overlap = Overlap(region, self._learned, self._check)
        self._run: Run | None = None
        self._push: PushClient | None = None
        self._held: dict[int, Held] = {}
        self._seconds = 0.0
        self._before = (0, 0)
        self._most_bytes = 0

    def has_backward(self, run: Run) -> bool:
        """Whether every micro-batch of the share also goes backward."""
        return run.training and (self.region.trainable or bool(run.wanted))

    def begin(self, run: Run) -> None:
        """Begins to pull the share's parameters. Raises as `ParameterClient`; Cancelled when the share was dropped."""
        run.check()
        self._forget()
        self._run = run
        self.region.train(run.training)
        for each in self._learned:
            each.tensor.grad = None
        if self._parameters is None:
            return
        self._before = self._parameters.sent_bytes, self._parameters.received_bytes
        self._parameters.connect(run.share.shards)
        pull = self._parameters.pulling(run.share, self.region.state())
        run.watched(pull)
        if run.training:
            self._push = self._parameters.pushing(run.share)
            run.watched(self._push)
            self._overlap.begin(pull, self._push)
        else:
            pull.wait_all()

    def forward(self, run: Run, micro_batch: int, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name, detached. Without inputs there are none. InvalidInput for what the contract excludes."""
        run.check()
        backward = self.has_backward(run)
        if not inputs:
            if backward:
                self._held[micro_batch] = Held({}, {}, 0)
            return {}
        check_inputs(self.region.contract, inputs)
        keeps = backward and not self._recompute
        for name in run.wanted & inputs.keys() if backward else ():
            if inputs[name].is_floating_point():
                inputs[name].requires_grad_()
        outputs = self._timed(run, micro_batch, inputs, graph=keeps)
        if backward:
            size = nbytes(inputs) + (nbytes(outputs) if keeps else 0)
            # Of outputs that are computed again only dtypes and shapes are kept, to check gradients by.
            kept = outputs if keeps else {name: each.to("meta") for name, each in outputs.items()}
            self._held[micro_batch] = Held(inputs, kept, size)
            self._most_bytes = max(self._most_bytes, sum(each.size for each in self._held.values()))
        return {name: each.detach() for name, each in outputs.items()}

    def backward(self, run: Run, micro_batch: int, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Gradients with respect to the inputs that want one, as far as there are any; the region's own are added up.
        InvalidInput for a gradient of what is no output."""
        run.check()
        held = self._held.pop(micro_batch)
        check_gradients(held.outputs, gradients)
        if micro_batch == run.micro_batches - 1:
            self._overlap.last()
        began, waited = time.perf_counter(), self._overlap.waited_s
        if gradients:
            self._differentiate(run, micro_batch, held, gradients)
        self._seconds += time.perf_counter() - began - (self._overlap.waited_s - waited)
        return {name: each.grad for name, each in held.inputs.items() if each.grad is not None}

    def finish(self, run: Run) -> pb.Done:
        """Hands over what is left and waits until the shards have everything. Raises as `ParameterClient`."""
        run.check()
        if self._push is not None:
            self._overlap.end((run.share.stop - run.share.start) / run.share.divisor)
            self._push.finish()
        done = pb.Done(compute_seconds=self._seconds, held_bytes=self._most_bytes)
        if self._parameters is not None:
            done.sent_bytes = self._parameters.sent_bytes - self._before[0]
            done.received_bytes = self._parameters.received_bytes - self._before[1]
        self._forget()
        return done

    def close(self) -> None:
        self._forget()
        if self._parameters is not None:
            self._parameters.close()

    def _differentiate(self, run: Run, micro_batch: int, held: Held, gradients: Mapping[str, Tensor]) -> None:
        outputs, before = held.outputs, dict[str, Tensor]()
        if self._recompute:
            # Running statistics have seen this micro-batch already.
            before = {name: each.clone() for name, each in self.region.named_buffers()}
            outputs = self._computed(run, micro_batch, held.inputs, graph=True)
        learning = [name for name in gradients if outputs[name].requires_grad]
        if learning:
            torch.autograd.backward([outputs[name] for name in learning], [gradients[name] for name in learning])
        for name, each in self.region.named_buffers() if before else ():
            each.copy_(before[name])

    def _timed(self, run: Run, micro_batch: int, inputs: Mapping[str, Tensor], *, graph: bool) -> dict[str, Tensor]:
        began, waited = time.perf_counter(), self._overlap.waited_s
        outputs = self._computed(run, micro_batch, inputs, graph=graph)
        self._seconds += time.perf_counter() - began - (self._overlap.waited_s - waited)
        return outputs

    def _computed(self, run: Run, micro_batch: int, inputs: Mapping[str, Tensor], *, graph: bool) -> dict[str, Tensor]:
        # Whatever is random depends on share, region and micro-batch only: the same wherever and whenever it is
        # computed, and so also when it is computed again.
        torch.manual_seed(_seed(run.share.seed, self.region.name, micro_batch))
        with nullcontext() if graph else torch.no_grad():
            outputs: dict[str, Tensor] = self.region(inputs)
        return outputs

    def _forget(self) -> None:
        self._overlap.abandon()
        self._run = self._push = None
        self._held.clear()
        self._seconds, self._most_bytes = 0.0, 0

    def _check(self) -> None:
        if self._run is not None:
            self._run.check()


def _seed(seed: int, region: str, micro_batch: int) -> int:
    digest = hashlib.sha256(f"{seed} {region} {micro_batch}".encode()).digest()
    return int.from_bytes(digest[:7], "little")
