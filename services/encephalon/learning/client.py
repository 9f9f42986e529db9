"""How a computation sees the parameter server; `parameters.ParameterClient` is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from encephalon.api.training.v1 import training_pb2 as training_pb
from encephalon.learning.overlap import Pulls, Pushes

__all__ = ["Client", "PullClient", "PushClient"]


class PullClient(Pulls, Protocol):
    def abort(self) -> None: ...


class PushClient(Pushes, Protocol):
    def finish(self) -> None: ...

    def abort(self) -> None: ...


class Client(Protocol):
    @property
    def sent_bytes(self) -> int: ...

    @property
    def received_bytes(self) -> int: ...

    def connect(self, shards: training_pb.Shards) -> None: ...

    def pulling(self, share: training_pb.Share, into: Mapping[str, Tensor]) -> PullClient: ...

    def pushing(self, share: training_pb.Share) -> PushClient: ...

    def close(self) -> None: ...
