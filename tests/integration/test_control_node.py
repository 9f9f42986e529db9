"""A control node over real gRPC and discovery, with shards and workers that compute nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as ps
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import EncephalonError, FailedPrecondition, InvalidInput
from encephalon.core.serving import serving
from encephalon.core.status import abort, from_rpc_error
from encephalon.discovery import Instance, announced, resolve
from encephalon.state import KeyValue, Objects, open_key_value, open_objects
from encephalon.training.runs import INSTANCES, RunSettings, keys_of
from tests.unit.training.controller.shards import FakeShard
from tests.unit.training.controller.simulation import TENSORS, settings_of
from tests.waiting import until

M = TypeVar("M", bound=Message)
SHARD = "encephalon.api.parameter_server.v1.ParameterServerService"
CONTROL = "encephalon.api.training.v1.TrainingService"


@contextlib.asynccontextmanager
async def shard_served(store: KeyValue, shard: FakeShard) -> AsyncIterator[None]:
    def method(kind: type[M], answer: Callable[[M], Message]) -> grpc.RpcMethodHandler[Any, Any]:
        async def call(message: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            try:
                return answer(kind.FromString(message)).SerializeToString()
            except EncephalonError as error:
                await abort(context, error)

        return grpc.unary_unary_rpc_method_handler(call)

    handler = grpc.method_handlers_generic_handler(
        SHARD,
        {
            "Describe": method(ps.DescribeRequest, lambda request: shard.describe()),
            "Load": method(ps.LoadRequest, shard.load),
            "Prepare": method(ps.PrepareRequest, shard.prepare),
            "Decide": method(ps.DecideRequest, shard.decide),
            "Checkpoint": method(ps.CheckpointRequest, shard.checkpoint),
        },
    )
    async with serving([handler], addresses=["127.0.0.1:0"]) as server:
        instance = Instance(
            brain=f"{INSTANCES}r",
            region=f"shard-{shard.number}",
            id=shard.instance,
            address=server.addresses[0],
            host="here",
            state=Instance.STATE_READY,
        )
        async with announced(store, "default", instance):
            yield


class MirroredObjects:
    """What the shards write as objects lies where the control node finds it."""

    def __init__(self, folder: Path) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False
        self.folder = folder


class Garbage:
    def SerializeToString(self) -> bytes:
        return b"\xff\xff\xff"


@dataclass
class Client:
    channel: grpc.aio.Channel

    async def ask(self, method: str, request: Message, kind: type[M]) -> M:
        try:
            call = self.channel.unary_unary(
                f"/{CONTROL}/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=kind.FromString,
            )
            return await call(request, timeout=5)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    async def watch(self) -> AsyncIterator[pb.RunStatus]:
        call = self.channel.unary_stream(
            f"/{CONTROL}/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.RunStatus.FromString,
        )
        async for status in call(pb.WatchRequest(run="r"), timeout=30):
            yield status


@dataclass
class Place:
    folder: Path
    store: KeyValue
    objects: Objects
    shards: list[FakeShard]
    known: set[str] = field(default_factory=set)

    @property
    def arguments(self) -> list[str]:
        return [
            *("--run", "r", "--state", f"sqlite://{self.folder}/state.db", "--objects", f"folder://{self.folder}/o"),
            *("--folder", str(self.folder / "run"), "--grace-s", "1"),
        ]

    async def state(self) -> pb.RunState:
        entry = await self.store.get(keys_of("default", "r")[1])
        return pb.RunState.FromString(entry.value) if entry is not None else pb.RunState()

    @contextlib.asynccontextmanager
    async def control_node(self, *more: str) -> AsyncIterator[asyncio.subprocess.Process]:
        with (self.folder / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "encephalon.training", *self.arguments, *more), stderr=log
            )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async def found() -> str:
            instances = await resolve(self.store, "default", f"{INSTANCES}r", "controller")
            # One that was killed is announced until its lease runs out.
            new = [each for each in instances if each.id not in self.known]
            self.known.update(each.id for each in new)
            return new[-1].address if new else ""

        address = await until(found, within=30, what="the control node is announced")
        async with grpc.aio.insecure_channel(str(address)) as channel:
            yield Client(channel)

    async def work(self, client: Client, name: str = "worker-0", most: int = 1 << 30) -> str:
        """As a worker does, until the run is over; gives the sentence that it was told."""
        member = pb.Member(worker=name, incarnation="1")
        await client.ask("Join", join(member), pb.JoinResponse)
        while most:
            answer = await client.ask("Next", pb.NextRequest(run="r", member=member), pb.NextResponse)
            if answer.finished:
                return answer.finished
            if answer.HasField("share"):
                await client.ask("Report", self.done(member, answer.share), pb.ReportResponse)
                most -= 1
        return ""

    def done(self, member: pb.Member, share: pb.Share) -> pb.ReportRequest:
        samples = share.stop - share.start
        report = pb.ReportRequest(run="r", member=member, share=share, samples=samples, compute_seconds=0.01)
        if share.kind == pb.Share.KIND_INITIALISE:
            report.initial.pieces.add(key=share.key)
            self.shards[0].objects.objects[share.key] = json.dumps([]).encode()
        elif share.kind == pb.Share.KIND_TRAIN:
            for shard in self.shards:
                assert list(share.shards.data_addresses) == ["shard-0:1", "shard-1:1"]
                samples_ = (share.epoch, share.start, share.stop)
                shard.push(share.generation, share.update, share.rank, share.attempt, samples_)
        return report


def join(member: pb.Member, **more: Any) -> pb.JoinRequest:
    values = {"tensors": TENSORS, "model_digest": "d", "training_samples": 50, "host": "here", "run": "r"}
    return pb.JoinRequest(member=member, **{**values, **more})


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with (
        open_key_value(f"sqlite://{tmp_path}/state.db") as store,
        open_objects(f"folder://{tmp_path}/o") as objects,
    ):
        mirrored: Any = MirroredObjects(tmp_path)
        shards = [FakeShard(number, mirrored) for number in range(2)]
        async with contextlib.AsyncExitStack() as stack:
            for shard in shards:
                await stack.enter_async_context(shard_served(store, shard))
            yield Place(tmp_path, store, objects, shards)


async def begun(place: Place, **more: Any) -> RunSettings:
    settings = settings_of(**{"batch_size": 5, "shards": 2, "workers": 1, **more})
    await place.store.put(keys_of("default", "r")[0], settings.model_dump_json().encode())
    return settings


async def test_a_signal_stops_a_run_with_a_checkpoint_and_all_hear_of_it(place: Place) -> None:
    await begun(place, epochs=1000)
    async with place.control_node("--metrics-port", "0") as process, place.client() as client:
        working = asyncio.create_task(place.work(client))
        statuses: list[pb.RunStatus] = []
        stopping = False
        async for status in client.watch():
            statuses.append(status)
            if status.version > 20 and not stopping:
                stopping = True
                process.send_signal(signal.SIGTERM)
        assert "was stopped" in await working
        assert await asyncio.wait_for(process.wait(), 20) == 0
    assert statuses[-1].state == pb.RunState.STATE_STOPPED
    assert [each.worker for each in statuses[-1].workers] == ["worker-0"]
    versions = [each.version for each in statuses]
    assert versions == sorted(versions)
    state = await place.state()
    assert state.checkpoint.version == place.shards[0].version == versions[-1]
    assert not await resolve(place.store, "default", f"{INSTANCES}r", "controller")


async def test_a_control_node_that_is_killed_is_followed_by_another_that_goes_on(place: Place) -> None:
    await begun(place, epochs=20, checkpoint_steps=1000)
    async with place.control_node() as process, place.client() as client:
        await place.work(client, most=8)
        process.kill()
        await process.wait()
    at = place.shards[0].version
    assert at >= 6
    async with place.control_node() as process, place.client() as client:
        place.shards[0].not_finite = lambda update: "region/weight" if update == at + 4 else ""
        assert "'worker-1'" in await place.work(client, "worker-1")
        assert await asyncio.wait_for(process.wait(), 20) == 1
    assert (place.folder / "log").read_text().splitlines()[-1].startswith("the run 'r' has failed: worker 'worker-1'")
    assert len(place.shards[0].decided) >= at, "nothing was loaded again"
    state = await place.state()
    assert state.state == pb.RunState.STATE_FAILED
    assert state.checkpoint.version == at + 3


async def test_what_does_not_fit_is_refused_with_a_sentence(place: Place) -> None:
    await begun(place)
    member = pb.Member(worker="w", incarnation="1")
    other = [ps.Tensor(name="region/weight", shape=[4, 5], kind=ps.Tensor.KIND_PARAMETER)]
    huge = [ps.Tensor(name="region/weight", shape=[1 << 62, 1 << 62], kind=ps.Tensor.KIND_PARAMETER)]
    async with place.control_node() as process, place.client() as client:
        answer = await client.ask("Heartbeat", pb.HeartbeatRequest(run="r", member=member), pb.HeartbeatResponse)
        assert answer.rejoin
        with pytest.raises(InvalidInput, match="dimensions"):
            await client.ask("Join", join(member, tensors=huge), pb.JoinResponse)
        with pytest.raises(InvalidInput, match="0 tensors"):
            await client.ask("Join", join(member, tensors=[]), pb.JoinResponse)
        with pytest.raises(InvalidInput, match="incarnation"):
            await client.ask("Join", join(pb.Member(worker="w")), pb.JoinResponse)
        first = await client.ask("Join", join(member), pb.JoinResponse)
        assert first.layout.shards == 2
        with pytest.raises(FailedPrecondition, match=r"'region/weight' has shape \[4, 5\] and not \[4, 4\]"):
            await client.ask("Join", join(member, tensors=other), pb.JoinResponse)
        with pytest.raises(FailedPrecondition, match="51 training samples and not 50"):
            await client.ask("Join", join(member, training_samples=51), pb.JoinResponse)
        with pytest.raises(FailedPrecondition, match="digest"):
            await client.ask("Join", join(member, model_digest="e"), pb.JoinResponse)
        with pytest.raises(FailedPrecondition, match="'other'"):
            await client.ask("Join", join(member, run="other"), pb.JoinResponse)
        with pytest.raises(InvalidInput, match="no JoinRequest"):
            await client.ask("Join", Garbage(), pb.JoinResponse)  # type: ignore[arg-type]
        process.kill()
