"""The control node is followed: it comes, moves, dies; and what the store says of the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.api.training.v1 import training_pb2 as pb
from encephalon.core.errors import FailedPrecondition, Unavailable
from encephalon.core.serving import serving
from encephalon.core.status import abort
from encephalon.discovery import announced
from encephalon.state import KeyValue, open_key_value
from encephalon.training.runs import INSTANCES, keys_of
from encephalon.training.worker.control import SERVICE, Control, following
from encephalon.training.worker.service import over
from encephalon.training.worker.settings import WorkerSettings
from tests.servers import free_port
from tests.waiting import until


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[KeyValue]:
    async with open_key_value(f"sqlite://{tmp_path}/state.db") as store:
        yield store


@asynccontextmanager
async def answering(sentence: str) -> AsyncIterator[str]:
    """A control node that ends every run with its sentence, and refuses whoever joins. Its address."""

    async def next(message: bytes, context: object) -> bytes:
        return pb.NextResponse(finished=sentence).SerializeToString()

    async def join(message: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await abort(context, FailedPrecondition(f"{sentence} refuses"))

    methods = {"Next": next, "Join": join}
    handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
    handler = grpc.method_handlers_generic_handler(SERVICE, handlers)  # type: ignore[arg-type]
    async with serving([handler], addresses=["127.0.0.1:0"]) as server:
        yield server.addresses[0]


def instance(address: str, id: str) -> Instance:
    where = {"brain": f"{INSTANCES}r", "region": "controller", "address": address}
    return Instance(id=id, state=Instance.STATE_READY, **where)


async def asked(control: Control, timeout_s: float = 2.5) -> str:
    try:
        return (await control.ask("Next", pb.NextRequest(), pb.NextResponse, timeout_s=timeout_s)).finished
    except Unavailable:
        return ""


async def test_it_is_found_where_it_is_now(store: KeyValue) -> None:
    async with following(store, "default", "r") as control:
        with pytest.raises(Unavailable, match="no control node of the run is announced"):
            await control.ask("Next", pb.NextRequest(), pb.NextResponse, timeout_s=0.05)
        async with answering("first") as address, announced(store, "default", instance(address, "a")):
            assert await asked(control) == "first"
            with pytest.raises(FailedPrecondition, match="first refuses"):
                await control.ask("Join", pb.JoinRequest(), pb.JoinResponse, timeout_s=2.5)
        async with answering("second") as address, announced(store, "default", instance(address, "b")):

            async def moved() -> bool:
                return await asked(control) == "second"

            await until(moved)


async def test_one_that_was_killed_and_is_still_announced_is_passed_over(store: KeyValue) -> None:
    dead = f"127.0.0.1:{free_port()}"
    async with answering("living") as address, following(store, "default", "r") as control:
        await control.announced([address, dead])
        assert {await asked(control), await asked(control)} >= {"living"}
        await control.announced([dead, address])
        assert await asked(control) == "living"


async def test_the_end_of_a_run_is_in_its_state(store: KeyValue) -> None:
    settings = WorkerSettings(run="r", worker="w", state="", objects="")
    key = keys_of("default", "r")[1]
    assert await over(store, settings, True) == ""
    await store.put(key, b"\xff")
    assert await over(store, settings, True) == ""
    ends = {
        pb.RunState.STATE_RUNNING: ("", ""),
        pb.RunState.STATE_SUCCEEDED: ("so it is", "so it is"),
        pb.RunState.STATE_STOPPED: ("", "so it is"),
        pb.RunState.STATE_FAILED: ("", "so it is"),
    }
    for state, (before, after) in ends.items():
        await store.put(key, pb.RunState(state=state, sentence="so it is").SerializeToString())
        assert (await over(store, settings, False), await over(store, settings, True)) == (before, after)
