"""A connection to a coordinator, or to any server of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
import grpc.aio
from numpy.typing import ArrayLike

from encephalon.api.coordinator.v1 import coordinator_pb2
from encephalon.client.answer import Answer
from encephalon.client.conversion import to_tensors
from encephalon.client.description import BrainDescription
from encephalon.core.contract import Contract
from encephalon.core.errors import DeadlineExceeded, InvalidInput, NotFound, Unavailable
from encephalon.core.inference import InferenceClient
from encephalon.core.status import from_rpc_error
from encephalon.core.wire import InferRequest, RequestedOutput

__all__ = ["DEFAULT_ADDRESS", "DEFAULT_TIMEOUT_S", "Brains", "connect"]

DEFAULT_ADDRESS = "127.0.0.1:9000"
DEFAULT_TIMEOUT_S = 30.0
DESCRIBE = "/encephalon.api.coordinator.v1.CoordinatorService/DescribeBrain"


class Brains:
    """The brains of one coordinator. Made by `connect`. What its calls raise is of `encephalon.EncephalonError`."""

    def __init__(self, client: InferenceClient, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._contracts: dict[str, Contract] = {}

    async def infer(
        self,
        brain: str,
        inputs: Mapping[str, ArrayLike | None] | None = None,
        /,
        *,
        timeout: float | None = None,
        outputs: Sequence[str] = (),
        parameters: Mapping[str, bool | int | float | str] | None = None,
        **named: ArrayLike | None,
    ) -> Answer:
        """Asks a brain: `await brains.infer("digits", image=picture, audio=sound)`.

        An input has the contract's rank, batch first, or one dimension less: then it is one row, and the answer's
        outputs have no batch dimension either. Datatypes are widened where no value can change and never narrowed; None
        means that the input is not sent. Inputs may also come as a mapping, for names that are no Python words.

        `timeout` in seconds bounds the whole call (None: the connection's). `outputs` names those wanted (none: all).
        `parameters` are the protocol's: `priority`, `sequence_id`, ...

        Raises InvalidInput, naming the tensor, what came and what was expected; NotFound for an unknown brain;
        Overloaded, Unavailable, DeadlineExceeded as their names say.
        """
        limit = self._timeout_s if timeout is None else timeout
        with self._explained(brain, limit):
            contract = await self._contract(brain, limit)
            tensors, single = to_tensors(contract, {**(inputs or {}), **named})
            request = InferRequest(
                model_name=brain,
                parameters=dict(parameters or {}),
                inputs=tensors,
                outputs=[RequestedOutput(name) for name in outputs],
            )
            try:
                response = await self._client.infer(request, limit)
            except (InvalidInput, NotFound):
                self._contracts.pop(brain, None)  # it may have been replaced since we asked what it takes
                raise
        return Answer.of(response, single=single)

    async def contract(self, brain: str) -> Contract:
        """What the brain takes and gives; asked for once and remembered until the brain refuses what fits it."""
        with self._explained(brain, self._timeout_s):
            return await self._contract(brain, self._timeout_s)

    async def names(self) -> list[str]:
        """The brains that the coordinator knows."""
        with self._explained("", self._timeout_s):
            return [entry.name for entry in await self._client.index(timeout_s=self._timeout_s)]

    async def ready(self, brain: str) -> bool:
        """True when the brain can answer now. NotFound for an unknown one."""
        with self._explained(brain, self._timeout_s):
            return await self._client.model_ready(brain, timeout_s=self._timeout_s)

    async def describe(self, brain: str) -> BrainDescription:
        """Regions, replicas and latencies as the coordinator sees them now. Unsupported by servers other than ours."""
        request = coordinator_pb2.DescribeBrainRequest(brain=brain)
        with self._explained(brain, self._timeout_s):
            async with grpc.aio.insecure_channel(self._client.address) as channel:
                call = channel.unary_unary(
                    DESCRIBE,
                    request_serializer=coordinator_pb2.DescribeBrainRequest.SerializeToString,
                    response_deserializer=coordinator_pb2.DescribeBrainResponse.FromString,
                )
                try:
                    return BrainDescription.of(await call(request, timeout=self._timeout_s))
                except grpc.RpcError as error:
                    raise from_rpc_error(error) from None

    async def load(self, brain: str, manifest: Path | str | None = None) -> None:
        """Loads or replaces a brain; the old one answers until the new one can, and stays when that fails.

        `manifest` is a file, or the manifest's text; None loads again what the coordinator has under this name.
        InvalidManifest names the line and the pathway.
        """
        parameters = {} if manifest is None else {"config": manifest_text(manifest)}
        with self._explained(brain, self._timeout_s):
            await self._client.load(brain, parameters)
        self._contracts.pop(brain, None)

    async def unload(self, brain: str) -> None:
        """The brain finishes what is in flight and takes nothing new."""
        with self._explained(brain, self._timeout_s):
            await self._client.unload(brain)
        self._contracts.pop(brain, None)

    async def _contract(self, brain: str, timeout_s: float) -> Contract:
        found = self._contracts.get(brain)
        if found is None:
            found = (await self._client.describe(brain, timeout_s=timeout_s)).contract
            self._contracts[brain] = found
        return found

    @contextmanager
    def _explained(self, brain: str, timeout_s: float) -> Iterator[None]:
        """Says in our words what gRPC says in its own."""
        address = self._client.address
        try:
            yield
        except Unavailable as error:
            # A coordinator that cannot reach a region says so in gRPC's words too, but names the region.
            if "region" in error.details or "failed to connect" not in error.message.lower():
                raise
            raise Unavailable(
                f"no coordinator answers on {address}; start one with `encephalon up BRAIN.yaml`", address=address
            ) from error
        except DeadlineExceeded as error:
            if error.message != "Deadline Exceeded":
                raise
            what = f"brain '{brain}'" if brain else "the coordinator"
            raise DeadlineExceeded(f"{what} on {address} did not answer within {timeout_s:g} s", brain=brain) from error


@asynccontextmanager
async def connect(
    address: str = DEFAULT_ADDRESS,
    *,
    timeout: float = DEFAULT_TIMEOUT_S,
    metadata: Sequence[tuple[str, str]] = (),
) -> AsyncIterator[Brains]:
    """`async with encephalon.connect("127.0.0.1:9000") as brains:`. The connection is made by the first call.

    `timeout` in seconds is that of calls that give none; `metadata` goes with every call, for example a bearer token.
    """
    async with InferenceClient(address, metadata=metadata) as client:
        yield Brains(client, timeout)


def manifest_text(manifest: Path | str) -> str:
    if isinstance(manifest, str):
        return manifest
    try:
        return manifest.read_text(encoding="utf-8")
    except OSError as error:
        raise NotFound(f"cannot read the manifest {manifest}: {error.strerror}", path=manifest) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the manifest {manifest} is not UTF-8 text", path=manifest) from error
