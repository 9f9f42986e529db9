"""A shard as a real process: found by discovery, loaded, learning, checkpointed, and asked to leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
import torch
from google.protobuf.message import Message

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.api.training.v1 import training_pb2 as training_pb
from encephalon.core.errors import DeadlineExceeded, FailedPrecondition, InvalidInput
from encephalon.core.status import from_rpc_error
from encephalon.discovery import resolve
from encephalon.learning.checkpoint import read_tensors, write_initial
from encephalon.learning.layout import planned
from encephalon.learning.parameters import ParameterClient
from encephalon.parameter_server.lifetime import INSTANCES, clear
from encephalon.state import KeyValue, open_key_value, open_objects
from encephalon.training import runs
from tests.unit.parameter_server.shards import TENSORS, gradients, optimizer
from tests.waiting import until

RUN = "digits"
START_S = 40.0
APPLY, SKIP = pb.DecideRequest.DECISION_APPLY, pb.DecideRequest.DECISION_SKIP


class Control:
    """Orders a shard as the control node does."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address)

    async def ask(
        self,
        request: Message,
        answer: type[Message],
        *,
        timeout: float = 10.0,
        taken: Callable[[], None] = lambda: None,
    ):  # type: ignore[no-untyped-def]
        name = request.DESCRIPTOR.name.removesuffix("Request")
        call = self.channel.unary_unary(f"/encephalon.api.parameter_server.v1.ParameterServerService/{name}")
        try:
            asked = call(request.SerializeToString(), timeout=timeout)
            await asked.initial_metadata()
            taken()
            return answer.FromString(await asked)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    async def describe(self) -> pb.DescribeResponse:
        described: pb.DescribeResponse = await self.ask(pb.DescribeRequest(), pb.DescribeResponse)
        return described

    async def update(self, number: int, decision: pb.DecideRequest.Decision.ValueType = APPLY) -> pb.DecideResponse:
        wanted = [pb.Contribution(rank=0)]
        prepare = pb.PrepareRequest(run=RUN, generation=1, update=number, contributions=wanted)
        assert (await self.ask(prepare, pb.PrepareResponse)).squared_norm > 0
        decide = pb.DecideRequest(
            run=RUN, generation=1, update=number, decision=decision, version=number, scale=1.0, note=b"%d" % number
        )
        decided: pb.DecideResponse = await self.ask(decide, pb.DecideResponse)
        return decided


@contextlib.asynccontextmanager
async def process(folder: Path, store: KeyValue) -> AsyncIterator[tuple[asyncio.subprocess.Process, Instance]]:
    spool = folder / "spool"
    spool.mkdir(exist_ok=True)
    (spool / "old.piece").write_bytes(b"left")
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "encephalon.parameter_server", "--shard", "0", "--run", RUN),
        *("--state", f"sqlite://{folder}/state", "--objects", f"folder://{folder}/objects"),
        *("--folder", str(spool), "--metrics-port", "0"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        found: list[Instance] = []

        async def announced() -> bool:
            assert running.returncode is None
            found[:] = await resolve(store, "default", INSTANCES + RUN, "shard-0")
            return bool(found)

        await until(announced, within=START_S, what="the shard is announced")
        yield running, found[0]
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


def test_it_is_announced_where_the_run_looks() -> None:
    assert INSTANCES == runs.INSTANCES


async def test_a_shard_from_its_start_to_its_end(tmp_path: Path) -> None:
    wanted = optimizer("SGD", "ExponentialLR", {"gamma": 0.5}, lr=1.0)
    layout = planned(TENSORS, 1)
    zeros = [(each, torch.zeros(tuple(each.shape))) for each in TENSORS]
    async with (
        open_key_value(f"sqlite://{tmp_path}/state") as store,
        open_objects(f"folder://{tmp_path}/objects") as objects,
        process(tmp_path, store) as (running, instance),
    ):
        control = Control(instance.address)
        described = await control.describe()
        assert instance.id == f"shard-0-{described.incarnation}"
        assert (described.run, described.host) == ("", instance.host)
        assert not list((tmp_path / "spool").iterdir())

        decide = pb.DecideRequest(run=RUN, generation=1, update=1, decision=SKIP, version=1)
        with pytest.raises(FailedPrecondition, match="loaded nothing yet"):
            await control.ask(decide, pb.DecideResponse)
        load = pb.LoadRequest(
            run=RUN,
            generation=1,
            layout=layout,
            optimizer=wanted,
            checkpoint=await write_initial(objects, "run/0", zeros),
            buffers=4,
        )
        for _ in range(2):
            assert (await control.ask(load, pb.LoadResponse)).version == 0
        for change, kind, match in (
            ({"run": "other"}, FailedPrecondition, "serves run 'digits', not 'other'"),
            ({"shard": 3}, InvalidInput, "this is shard 0, not 3"),
            ({"generation": 0}, InvalidInput, "count from 1"),
        ):
            wrong = pb.LoadRequest.FromString(load.SerializeToString())
            wrong.MergeFrom(pb.LoadRequest(**change))  # type: ignore[arg-type]
            if "generation" in change:
                wrong.generation = 0
            with pytest.raises(kind, match=match):
                await control.ask(wrong, pb.LoadResponse)

        learned = gradients(1)
        shards = training_pb.Shards(generation=1, data_addresses=[described.data_address], hosts=[described.host])
        await asyncio.to_thread(worker, layout, shards, learned)
        assert (await control.update(1)).learning_rate == 0.5

        missing = [pb.Contribution(rank=0), pb.Contribution(rank=7)]
        request = pb.PrepareRequest(run=RUN, generation=1, update=2, contributions=missing)
        with pytest.raises(DeadlineExceeded, match=r"what ranks \[0, 7\] push"):
            await control.ask(request, pb.PrepareResponse, timeout=0.5)

        taken: list[bool] = []
        checkpoint = pb.CheckpointRequest(run=RUN, generation=1, version=1, key="run/1")
        pieces = [
            (await control.ask(checkpoint, pb.CheckpointResponse, taken=lambda: taken.append(True))).piece
            for _ in range(2)
        ]
        assert pieces[0] == pieces[1]
        assert taken
        whole = pb.Checkpoint(version=1, tensors=layout.tensors, pieces=pieces[:1])
        found = await read_tensors(objects, whole, tmp_path)
        assert torch.equal(found["a/weight"], -checked(learned["a/weight"]))
        assert torch.equal(found["a/mean"], checked(learned["a/mean"]))

        (tmp_path / "spool").rmdir()
        with pytest.raises(FailedPrecondition, match="cannot be written"):
            await control.ask(
                pb.CheckpointRequest(run=RUN, generation=1, version=1, key="run/again", published=0),
                pb.CheckpointResponse,
            )
        described = await control.describe()
        assert [(each.version, each.note) for each in described.decided] == [(1, b"1")]
        assert (described.version, described.generation, described.buffered_bytes) == (1, 1, 0)
        assert described.received_bytes >= described.held_bytes > 0

        await control.channel.close()
        running.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.wait(), 20) == 0
        assert await resolve(store, "default", INSTANCES + RUN, "shard-0") == []


def worker(layout: pb.Layout, shards: training_pb.Shards, values: dict[str, torch.Tensor | None]) -> None:
    """Pulls version 0, and pushes."""
    share = training_pb.Share(generation=1, update=1, rank=0, attempt=0, version=0)
    into = {each.name: torch.ones(tuple(each.shape)) for each in layout.tensors}
    with ParameterClient(layout) as client:
        client.connect(shards)
        client.pulling(share, into).wait_all()
        assert not any(bool(value.any()) for value in into.values())
        push = client.pushing(share)
        for each in layout.tensors:
            if each.kind == pb.Tensor.KIND_BUFFER:
                push.value(each.name, checked(values[each.name]))
            else:
                push.gradient(each.name, values[each.name])
        push.finish()


def checked(value: torch.Tensor | None) -> torch.Tensor:
    assert value is not None
    return value


def test_a_folder_that_cannot_be_used_is_named() -> None:
    with pytest.raises(FailedPrecondition, match="the folder /proc/no cannot be used"):
        clear(Path("/proc/no"))
