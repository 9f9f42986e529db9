"""Parameters in, gradients out: what a worker, or a region that learns, does with the shards."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Final, Self

import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.api.training.v1 import training_pb2 as training_pb
from encephalon.core.errors import FailedPrecondition, InvalidInput
from encephalon.core.host import host_identity
from encephalon.learning.compression import ErrorFeedback
from encephalon.learning.frames import Codec, Key
from encephalon.learning.layout import count
from encephalon.learning.link import Link
from encephalon.learning.pulling import Lane, Part, Pull, Target
from encephalon.learning.pushing import Outbox, Push, Source
from encephalon.learning.sharing import Sharing

__all__ = ["ParameterClient", "Pull", "Push"]

STALL_S: Final = 10.0
"""A stream on which nothing moves for so long is given up; README, order of time-outs."""
CODECS: Final = {"fp32": Codec.FP32, "bf16": Codec.BF16, "topk": Codec.TOPK}


class ParameterClient:
    """For one worker or one learning region; blocking, to be called from the thread that computes.

    `wire` decides what is computed, and so it never depends on where the shards are: only float32 is handed over in
    shared memory. With "topk" parameters are pulled as float32. `names`: only these tensors of the layout.
    """

    def __init__(
        self,
        layout: pb.Layout,
        *,
        wire: str = "fp32",
        top_k: float = 0.01,
        share_memory: bool = True,
        names: Collection[str] | None = None,
        stall_s: float = STALL_S,
    ) -> None:
        if wire not in CODECS:
            raise InvalidInput(f"wire is '{wire}', expected one of {', '.join(CODECS)}")
        self.sent_bytes = 0
        """Of messages and of what was left in shared memory, since the beginning."""
        self.received_bytes = 0
        self._wire = wire
        self._feedback = ErrorFeedback(top_k) if wire == "topk" else None
        self._share_memory = share_memory
        self._stall_s = stall_s
        self._sources = _sources(layout, names)
        self._shards: training_pb.Shards | None = None
        self._links: dict[int, Link] = {}
        self._sharings: dict[int, Sharing] = {}
        self._lock = threading.Lock()

    def connect(self, shards: training_pb.Shards) -> None:
        """To the shards of a share; nothing when these are the ones. FailedPrecondition when they are too few."""
        if self._shards == shards:
            return
        if len(shards.data_addresses) <= max(self._sizes(), default=-1):
            raise FailedPrecondition(
                f"the layout is over {max(self._sizes()) + 1} shards, {len(shards.data_addresses)} are there"
            )
        self.close()
        if self._feedback is not None:
            # What it remembers may be of shares behind the checkpoint that was loaded, which are computed again.
            self._feedback.clear()
        self._shards = training_pb.Shards()
        self._shards.CopyFrom(shards)
        here = host_identity()
        for shard, sizes in self._sizes().items():
            link = self._links[shard] = Link(shards.data_addresses[shard])
            if self._share_memory and shard < len(shards.hosts) and shards.hosts[shard] == here:
                self._sharings[shard] = Sharing(link, shards.generation, sizes)

    def pulling(self, share: training_pb.Share, into: Mapping[str, torch.Tensor]) -> Pull:
        """Begins to fill tensors (float32, in place) in forward order, with parameters of the share's version or later.

        `into` may leave out tensors. InvalidInput for one of another size; FailedPrecondition when this is not
        connected to the shards of the share's generation.
        """
        self._check(share)
        if unknown := set(into) - set(self._sources):
            raise InvalidInput(f"tensor '{min(unknown)}' is not among those that are learned here")
        targets = {
            name: Target(name, into[name], source.elements) for name, source in self._sources.items() if name in into
        }
        wire = "bf16" if self._wire == "bf16" else "fp32"
        lanes = {
            shard: Lane(link, None if wire == "bf16" else self._sharings.get(shard), wire, {})
            for shard, link in self._links.items()
        }
        for name, target in targets.items():
            for shard, number, start, stop in self._sources[name].slices:
                lanes[shard].parts[number] = Part(target, target.flat[start:stop])
        return Pull(
            share.generation,
            share.version,
            list(lanes.values()),
            targets,
            stall_s=self._stall_s,
            count=self._received,
        )

    def pushing(self, share: training_pb.Share) -> Push:
        """Takes one contribution for every tensor. FailedPrecondition as `pulling`."""
        self._check(share)
        key = Key(share.generation, share.update, share.rank, share.attempt)
        outboxes = {
            shard: Outbox(
                self._links[shard],
                self._sharings.get(shard) if self._wire == "fp32" else None,
                key,
                len(sizes),
                self._feedback,
                self._sent,
            )
            for shard, sizes in self._sizes().items()
        }
        return Push(self._sources, outboxes, CODECS[self._wire], self._feedback, stall_s=self._stall_s)

    def close(self) -> None:
        """Leaves the shards. Closing twice is harmless."""
        for sharing in self._sharings.values():
            sharing.close()
        for link in self._links.values():
            link.close()
        self._links, self._sharings, self._shards = {}, {}, None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sizes(self) -> dict[int, dict[int, int]]:
        """Elements by slice by shard."""
        sizes: dict[int, dict[int, int]] = {}
        for source in self._sources.values():
            for shard, number, start, stop in source.slices:
                sizes.setdefault(shard, {})[number] = stop - start
        return sizes

    def _check(self, share: training_pb.Share) -> None:
        generation = None if self._shards is None else self._shards.generation
        if generation != share.generation:
            raise FailedPrecondition(
                f"the share is of generation {share.generation}, the shards are of {generation}; connect to its shards"
            )

    def _sent(self, size: int) -> None:
        with self._lock:
            self.sent_bytes += size

    def _received(self, size: int) -> None:
        with self._lock:
            self.received_bytes += size


def _sources(layout: pb.Layout, names: Collection[str] | None) -> dict[str, Source]:
    """By name, in forward order."""
    cuts: dict[int, list[tuple[int, int, int, int]]] = {}
    for number, cut in enumerate(layout.slices):
        cuts.setdefault(cut.tensor, []).append((cut.shard, number, cut.start, cut.stop))
    known = {tensor.name for tensor in layout.tensors}
    if names is not None and (unknown := set(names) - known):
        raise InvalidInput(f"tensor '{min(unknown)}' is not in the layout")
    return {
        tensor.name: Source(tensor.name, count(tensor), tuple(cuts.get(at, ())))
        for at, tensor in enumerate(layout.tensors)
        if names is None or tensor.name in names
    }
