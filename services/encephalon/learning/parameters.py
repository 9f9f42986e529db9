"""Parameters in, gradients out: what a worker, or a region that learns, does with the shards."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Self

import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.api.training.v1 import training_pb2 as training_pb

__all__ = ["ParameterClient", "Pull", "Push"]


class Pull:
    """Parameters on their way into tensors, in forward order."""

    version: int
    """Of the parameters that came, the lowest; known after `wait_all`."""

    def wait(self, name: str) -> None:
        """Until the tensor is there. Unavailable, DeadlineExceeded or FailedPrecondition (drop the share)."""
        raise NotImplementedError

    def wait_all(self) -> None:
        """Until every tensor is there; raises as `wait`."""
        raise NotImplementedError

    def abort(self) -> None:
        """Nothing writes into the tensors any more when it returns."""
        raise NotImplementedError


class Push:
    """Contributions of one share on their way to the shards."""

    def gradient(self, name: str, tensor: torch.Tensor | None) -> None:
        """The gradient is final and must not be changed until `finish`; None: the parameter has none."""
        raise NotImplementedError

    def value(self, name: str, tensor: torch.Tensor) -> None:
        """Of a buffer, weighted by the share's samples."""
        raise NotImplementedError

    def finish(self) -> None:
        """Until all shards have everything. Unavailable, DeadlineExceeded or FailedPrecondition (drop the share)."""
        raise NotImplementedError

    def abort(self) -> None:
        """Sends nothing more; what was sent is never counted, for it is not whole."""
        raise NotImplementedError


class ParameterClient:
    """For one worker or one learning region; blocking, to be called from the thread that computes."""

    sent_bytes: int
    received_bytes: int

    def __init__(
        self,
        layout: pb.Layout,
        *,
        wire: str = "fp32",
        top_k: float = 0.01,
        share_memory: bool = True,
        names: Collection[str] | None = None,
    ) -> None:
        self.sent_bytes = self.received_bytes = 0

    def connect(self, shards: training_pb.Shards) -> None:
        """To the shards of a share; nothing when these are the ones."""
        raise NotImplementedError

    def pulling(self, share: training_pb.Share, into: Mapping[str, torch.Tensor]) -> Pull:
        """Begins to fill float32 tensors, in place, with parameters that are at least of the share's version."""
        raise NotImplementedError

    def pushing(self, share: training_pb.Share) -> Push:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
