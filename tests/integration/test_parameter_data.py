"""A worker's client against shards: over sockets and through shared memory, and what happens when something breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.api.training.v1 import training_pb2 as training_pb
from encephalon.core.errors import (
    Cancelled,
    DeadlineExceeded,
    EncephalonError,
    FailedPrecondition,
    InvalidInput,
    Unavailable,
)
from encephalon.core.host import host_identity
from encephalon.core.serving import serving
from encephalon.core.status import from_rpc_error
from encephalon.learning import patience
from encephalon.learning.frames import LAST, Batch, Codec, Frame, Key
from encephalon.learning.layout import planned
from encephalon.learning.link import SERVICE
from encephalon.learning.parameters import ParameterClient, Pull
from encephalon.parameter_server.data import DATA_LIMITS, ParameterData
from encephalon.parameter_server.decisions import Decision
from encephalon.parameter_server.shared import SharedParameters
from encephalon.parameter_server.store import Store
from tests.faults import faulty
from tests.waiting import until

TENSORS = (
    pb.Tensor(name="a/weight", shape=[700, 500], kind=pb.Tensor.KIND_PARAMETER),
    pb.Tensor(name="a/bias", shape=[7], kind=pb.Tensor.KIND_PARAMETER),
    pb.Tensor(name="a/mean", shape=[5], kind=pb.Tensor.KIND_BUFFER),
    pb.Tensor(name="b/weight", shape=[33, 3], kind=pb.Tensor.KIND_PARAMETER),
)
SGD = pb.Optimizer(name="SGD", arguments='{"lr": 1.0}')
Values = dict[str, torch.Tensor | None]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Shards:
    layout: pb.Layout
    stores: list[Store]
    data: list[ParameterData]
    addresses: list[str] = field(default_factory=list)

    @property
    def told(self) -> training_pb.Shards:
        hosts = [host_identity()] * len(self.addresses)
        return training_pb.Shards(generation=1, data_addresses=self.addresses, hosts=hosts)

    async def decide(self, update: int, *ranks: int, decision: Decision = Decision.APPLY) -> None:
        for store in self.stores:
            if decision is not Decision.DROP:
                await store.prepare(update, [(rank, 0) for rank in ranks])
            await store.decide(update, decision, version=store.version + 1)


@contextlib.asynccontextmanager
async def shards(
    addresses: Sequence[str] = ("127.0.0.1:0",), tensors: Sequence[pb.Tensor] = TENSORS
) -> AsyncIterator[Shards]:
    layout = planned(tensors, len(addresses))
    stores = [Store(layout, shard, SGD, memory=SharedParameters()) for shard in range(len(addresses))]
    running = Shards(layout, stores, [ParameterData(lambda store=store: store) for store in stores])  # type: ignore[misc]
    async with contextlib.AsyncExitStack() as stack:
        for address, data in zip(addresses, running.data, strict=True):
            server = await stack.enter_async_context(serving([data.handler()], addresses=[address], limits=DATA_LIMITS))
            stack.callback(data.close)
            running.addresses.append(server.addresses[0])
        yield running
    for store in stores:
        store.close()


@contextlib.asynccontextmanager
async def client(of: Shards, addresses: Sequence[str] = (), **options: Any) -> AsyncIterator[ParameterClient]:
    told = of.told
    told.data_addresses[:] = addresses or of.addresses
    worker = ParameterClient(of.layout, **options)
    worker.connect(told)
    try:
        yield worker
    finally:
        await asyncio.to_thread(worker.close)


def share(update: int = 1, rank: int = 0, attempt: int = 0, version: int = 0, generation: int = 1) -> training_pb.Share:
    return training_pb.Share(generation=generation, update=update, rank=rank, attempt=attempt, version=version)


def gradients(seed: int, tensors: Sequence[pb.Tensor] = TENSORS) -> Values:
    generator = torch.Generator().manual_seed(seed)
    return {tensor.name: torch.randn(tuple(tensor.shape), generator=generator) for tensor in tensors}


def zeros(tensors: Sequence[pb.Tensor] = TENSORS) -> dict[str, torch.Tensor]:
    return {tensor.name: torch.zeros(tuple(tensor.shape)) for tensor in tensors}


async def push(worker: ParameterClient, of: training_pb.Share, values: Mapping[str, torch.Tensor | None]) -> None:
    def run() -> None:
        pushing = worker.pushing(of)
        for name in reversed(list(values)):
            value = values[name]
            if name.endswith("mean") and value is not None:
                pushing.value(name, value)
            else:
                pushing.gradient(name, value)
        pushing.finish()

    await asyncio.to_thread(run)


async def pull(worker: ParameterClient, version: int, into: Mapping[str, torch.Tensor]) -> Pull:
    def run() -> Pull:
        pulling = worker.pulling(share(version=version), into)
        for name in into:
            pulling.wait(name)
        pulling.wait_all()
        return pulling

    return await asyncio.to_thread(run)


async def said(call: Any) -> EncephalonError:
    """The error that a raw call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


@pytest.mark.parametrize("share_memory", [True, False])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_two_workers_learn_together(kind: str, share_memory: bool, tmp_path: Path) -> None:
    addresses = ["127.0.0.1:0"] * 2 if kind == "tcp" else [f"unix:{tmp_path}/{shard}" for shard in range(2)]
    expected = zeros()
    async with (
        shards(addresses) as running,
        client(running, share_memory=share_memory) as one,
        client(running, share_memory=share_memory) as two,
    ):
        for update in (1, 2, 3):
            values = [gradients(10 * update + rank) for rank in range(2)]
            values[0]["a/bias"] = values[1]["a/bias"] = values[1]["b/weight"] = None
            await asyncio.gather(push(two, share(update, 1), values[1]), push(one, share(update, 0), values[0]))
            await running.decide(update, 0, 1)
            for name, held in expected.items():
                there = [each[name] for each in values if each[name] is not None]
                total = sum(there[1:], there[0].clone()) if there and there[0] is not None else 0.0
                expected[name] = total if name == "a/mean" else held - total  # type: ignore[assignment]
            into = zeros()
            pulled = await pull(one, update, into)
            assert (pulled.version, pulled.mixed) == (update, False)
            for name, held in expected.items():
                assert torch.equal(into[name], held), name
        assert one.sent_bytes > 3 * 4 * 350_000
        assert one.received_bytes >= 3 * 4 * 350_111
        assert sum(data.sent_bytes for data in running.data) < 5_000 or not share_memory


@pytest.mark.parametrize("wire", ["bf16", "topk"])
async def test_fewer_bytes(wire: str) -> None:
    values = gradients(1)
    async with shards() as running, client(running, wire=wire, top_k=0.02) as worker:
        await push(worker, share(), values)
        await running.decide(1, 0)
        into = zeros()
        await pull(worker, 1, into)
        exact, mean = values["a/weight"], values["a/mean"]
        assert exact is not None
        assert mean is not None
        assert torch.equal(into["a/mean"], mean)
        if wire == "bf16":
            assert torch.equal(into["a/weight"], -exact.bfloat16().float())
            assert 2 * 350_000 < worker.sent_bytes < 2.1 * 350_000
            assert worker.received_bytes < 2.1 * 350_000
        else:
            sent = into["a/weight"] != 0
            assert int(sent.sum()) == 7_000
            assert torch.equal(into["a/weight"][sent], -exact[sent])
            assert worker.sent_bytes < 8 * 7_100


async def test_a_pull_waits_for_its_version_and_for_the_first_tensors_only() -> None:
    async with shards() as running, client(running, names=["a/bias", "b/weight"]) as part, client(running) as worker:
        pulling = part.pulling(share(version=1), {"b/weight": (into := torch.zeros(33, 3).t().contiguous().t())})
        await push(worker, share(), gradients(1))
        assert into.sum() == 0
        await running.decide(1, 0)
        await asyncio.to_thread(pulling.wait, "b/weight")
        expected = gradients(1)["b/weight"]
        assert expected is not None
        assert torch.equal(into, -expected)


@pytest.mark.parametrize("share_memory", [True, False])
async def test_a_shard_that_goes_on_under_another_generation_is_no_fault_of_the_share(
    share_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shards() as running, client(running, share_memory=share_memory) as worker:
        store = running.stores[0]
        reached = store.reached

        async def renewing(generation: int, version: int) -> None:
            await reached(generation, version)
            await store.renew(2)  # behind the checks of the request, and before anything is sent

        monkeypatch.setattr(store, "reached", renewing)
        with pytest.raises(FailedPrecondition, match="generation 1 is over"):
            await pull(worker, 0, zeros())


async def test_top_k_begins_again_with_every_generation() -> None:
    async with shards() as running, client(running, wire="topk", top_k=0.1) as worker:
        (store,), steps = running.stores, []
        for generation in (1, 2):
            told = running.told
            told.generation = generation
            await store.renew(generation)
            await asyncio.to_thread(worker.connect, told)
            await push(worker, share(generation, generation=generation), gradients(1))
            _, weights = store.parameters(0)
            before = weights.clone()
            await running.decide(generation, 0)
            steps.append(before - weights)
        torch.testing.assert_close(steps[0], steps[1])


async def test_memory_that_a_killed_shard_was_changing_is_not_waited_for() -> None:
    async with shards() as running, client(running) as worker:
        memory = running.stores[0].memory
        assert isinstance(memory, SharedParameters)
        with memory.changing(1):  # and never comes to its end
            pulling = worker.pulling(share(), zeros())
            await until(lambda: pulling._lanes[0].call is not None)
            await asyncio.wait_for(asyncio.to_thread(pulling.abort), 5)


async def test_regions_bring_their_parts_of_one_contribution() -> None:
    values = gradients(3)
    async with (
        shards(["127.0.0.1:0"] * 2) as running,
        client(running, names=["a/weight", "a/bias", "a/mean"]) as first,
        client(running, names=["b/weight"], share_memory=False) as second,
    ):
        await push(second, share(), {"b/weight": values["b/weight"]})
        await push(first, share(), {name: value for name, value in values.items() if name[0] == "a"})
        await running.decide(1, 0)
        into = zeros()
        await pull(second, 1, {"b/weight": into["b/weight"]})
        assert torch.equal(-into["b/weight"], values["b/weight"])  # type: ignore[arg-type]


@pytest.mark.parametrize("share_memory", [True, False])
async def test_the_same_push_again_adds_nothing(share_memory: bool) -> None:
    values = gradients(4)
    async with shards() as running, client(running, share_memory=share_memory) as worker:
        for _ in range(4):
            await push(worker, share(), values)
        await running.decide(1, 0)
        into = zeros()
        await pull(worker, 1, into)
        assert torch.equal(-into["a/weight"], values["a/weight"])  # type: ignore[arg-type]
        with pytest.raises(FailedPrecondition, match="decided"):
            await push(worker, share(), values)


@pytest.mark.parametrize("decision", [Decision.APPLY, Decision.DROP])
async def test_memory_that_the_shard_may_read_is_not_written(decision: Decision) -> None:
    """Three updates are open at once: two lie in shared memory, the third comes over the socket."""
    values = [gradients(seed) for seed in range(5)]
    async with shards() as running, client(running) as worker:
        for update in (1, 2, 3):
            await push(worker, share(update), values[update])
        sent = running.data[0].received_bytes
        into = zeros()
        await running.decide(1, 0, decision=decision)
        await push(worker, share(4), values[4])  # in the memory of the first
        assert running.data[0].received_bytes - sent >= 4 * 350_111
        for update in (2, 3, 4):
            await running.decide(update, 0)
        await pull(worker, 3, into)
        expected = torch.zeros(700, 500)
        for update in (1, 2, 3, 4) if decision is Decision.APPLY else (2, 3, 4):
            expected -= values[update]["a/weight"]  # type: ignore[operator]
        assert torch.equal(into["a/weight"], expected)
        assert len(running.data[0]._segments) == 2
        await asyncio.to_thread(worker.close)
        await until(lambda: not running.data[0]._segments, what="the shard lets the worker's memory go")


async def test_a_connection_that_breaks_in_the_middle_is_mended_within_the_share() -> None:
    tensors = (pb.Tensor(name="w", shape=[3_000_000], kind=pb.Tensor.KIND_PARAMETER), TENSORS[1])
    values = gradients(5, tensors)
    async with (
        shards(tensors=tensors) as running,
        faulty(running.addresses[0]) as line,
        client(running, [line.address], share_memory=False) as worker,
    ):
        pushing = worker.pushing(share())
        await asyncio.to_thread(pushing.gradient, "w", values["w"])
        await until(lambda: running.data[0].received_bytes > 1 << 20, what="a part has come")
        await line.cut()
        await line.mend()
        pushing.gradient("a/bias", values["a/bias"])
        await asyncio.to_thread(pushing.finish)
        await running.decide(1, 0)

        into = zeros(tensors)
        pulling = worker.pulling(share(version=1), into)
        await until(lambda: worker.received_bytes, what="a part has come")
        await line.cut()
        await line.mend()
        await asyncio.to_thread(pulling.wait_all)
        assert torch.equal(-into["w"], values["w"])  # type: ignore[arg-type]


async def test_memory_is_not_used_again_after_a_broken_push() -> None:
    async with (
        shards() as running,
        faulty(running.addresses[0]) as line,
        client(running, [line.address]) as worker,
    ):
        values = gradients(6)
        pushing = worker.pushing(share())
        pushing.gradient("a/weight", values["a/weight"])
        await until(lambda: running.data[0].received_bytes > 4 * 350_000, what="the slice was lent")
        await line.cut()
        await line.mend()
        for name in ("a/bias", "b/weight"):
            pushing.gradient(name, values[name])
        assert values["a/mean"] is not None
        pushing.value("a/mean", values["a/mean"])
        await asyncio.to_thread(pushing.finish)
        await push(worker, share(2), gradients(7))
        await running.decide(1, 0)
        await running.decide(2, 0)
        into = zeros()
        await pull(worker, 2, into)
        expected = torch.zeros(700, 500) - values["a/weight"] - gradients(7)["a/weight"]  # type: ignore[operator]
        assert torch.equal(into["a/weight"], expected)


async def test_a_shard_that_is_away_and_one_that_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FAILING_S", 0.1)
    async with (
        shards() as running,
        faulty(running.addresses[0]) as line,
        client(running, [line.address], share_memory=False, stall_s=0.3) as worker,
    ):
        await push(worker, share(), gradients(1))
        line.stall()
        with pytest.raises(DeadlineExceeded, match="took nothing"):
            await push(worker, share(2), gradients(1))
        with pytest.raises(DeadlineExceeded, match="sent nothing"):
            await pull(worker, 0, zeros())
        line.flow()
        await line.cut()
        with pytest.raises(Unavailable):
            await push(worker, share(3), gradients(1))
        with pytest.raises(Unavailable):
            await pull(worker, 0, zeros())
        await line.mend()
        await until(lambda: _works(worker), what="it is back")


async def _works(worker: ParameterClient) -> bool:
    with contextlib.suppress(Unavailable):
        await pull(worker, 0, zeros())
        return True
    return False


async def test_giving_up_wakes_whoever_waits() -> None:
    async with shards() as running, client(running) as worker:
        into = zeros()
        pulling = worker.pulling(share(version=9), into)
        waiting = asyncio.create_task(asyncio.to_thread(pulling.wait, "a/weight"))
        await asyncio.to_thread(pulling.abort)
        with pytest.raises(Cancelled):
            await waiting
        pushing = worker.pushing(share())
        pushing.gradient("a/bias", None)
        pushing.abort()
        await push(worker, share(attempt=1), gradients(1))
        with pytest.raises(FailedPrecondition, match="attempt"):
            await push(worker, share(attempt=0), gradients(1))
        with pytest.raises(FailedPrecondition, match="generation 2"):
            worker.pushing(share(generation=2))


async def test_the_client_refuses_what_cannot_be() -> None:
    async with shards() as running, client(running) as worker:
        pushing = worker.pushing(share())
        with pytest.raises(InvalidInput, match="8 elements, expected 7"):
            pushing.gradient("a/bias", torch.zeros(8))
        pushing.gradient("a/bias", None)
        with pytest.raises(ValueError, match="pushed before"):
            pushing.gradient("a/bias", None)
        with pytest.raises(ValueError, match="was not pushed"):
            pushing.finish()
        pushing.abort()
        with pytest.raises(InvalidInput, match="float32"):
            worker.pulling(share(), {"a/bias": torch.zeros(7, dtype=torch.float64)})
        with pytest.raises(InvalidInput, match="nowhere"):
            worker.pulling(share(), {"nowhere": torch.zeros(7)})
        with pytest.raises(InvalidInput, match="nowhere"):
            ParameterClient(running.layout, names=["nowhere"])
        with pytest.raises(InvalidInput, match="fp64"):
            ParameterClient(running.layout, wire="fp64")


def one(slice: int, offset: int, count: int, payload: bytes, *, flags: int = 0, key: Key | None = None) -> bytes:
    batch = Batch()
    batch.add(Frame(key or Key(1, 1), slice, offset, count, Codec.FP32, flags, memoryview(payload)))
    return batch.take()


async def test_hostile_streams_are_refused_and_disturb_nobody() -> None:
    values = gradients(8)
    async with (
        shards() as running,
        client(running) as worker,
        grpc.aio.insecure_channel(running.addresses[0]) as channel,
    ):
        number = next(at for at, cut in enumerate(running.layout.slices) if cut.stop - cut.start == 7)
        raw = {name: channel.stream_unary(f"/{SERVICE}/{name}") for name in ("Push",)}
        asking = {name: channel.unary_stream(f"/{SERVICE}/{name}") for name in ("Pull", "Share")}
        pushing = worker.pushing(share())
        pushing.gradient("a/weight", values["a/weight"])

        good = one(number, 0, 3, bytes(12))
        for messages, kind, sentence in (
            ([b"nonsense" * 20], InvalidInput, "begins with"),
            ([one(99, 0, 3, bytes(12))], InvalidInput, "slice 99"),
            ([one(number, 3, 3, bytes(12))], InvalidInput, "expected 0"),
            ([good, good], InvalidInput, "expected 3"),
            ([good, one(number, 3, 3, bytes(12), key=Key(1, 2))], InvalidInput, "one contribution"),
            ([one(number, 0, 3, bytes(12), key=Key(2, 1))], FailedPrecondition, "generation 2"),
            ([one(number, 0, 7, bytes(24), flags=LAST | 4)], Unavailable, "not shared"),
            ([bytes(3 << 20)], InvalidInput, "larger than max"),
        ):
            error = await said(raw["Push"](iter(messages)))
            assert isinstance(error, kind), error
            assert sentence in error.message
        for request, kind, sentence in (
            (pb.PullRequest(generation=1, slices=[99], wire="fp32"), InvalidInput, "slice 99"),
            (pb.PullRequest(generation=1, slices=[0, 0], wire="fp32"), InvalidInput, "each once"),
            (pb.PullRequest(generation=1, wire="fp32"), InvalidInput, "0 slices"),
            (pb.PullRequest(generation=1, slices=[0], wire="fp8"), InvalidInput, "fp8"),
            (pb.PullRequest(generation=7, slices=[0], wire="fp32"), FailedPrecondition, "generation 7"),
        ):
            error = await said(asking["Pull"](request.SerializeToString()).read())
            assert isinstance(error, kind), error
            assert sentence in error.message
        assert isinstance(await said(asking["Pull"](b"\xff\xff").read()), InvalidInput)
        strange = pb.ShareRequest(generation=1, gradients=pb.Memory(process=1, descriptor=0, name="x", bytes=9))
        assert (await said(asking["Share"](strange.SerializeToString()).read())).reason == "Denied"

        pushing.gradient("a/bias", values["a/bias"])
        pushing.gradient("b/weight", values["b/weight"])
        assert values["a/mean"] is not None
        pushing.value("a/mean", values["a/mean"])
        await asyncio.to_thread(pushing.finish)
        await running.decide(1, 0)
        into = zeros()
        await pull(worker, 1, into)
        assert torch.equal(-into["a/bias"], values["a/bias"])  # type: ignore[arg-type]
