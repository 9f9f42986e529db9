from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from encephalon import (
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
    Unsupported,
    connect,
    connect_blocking,
)
from encephalon.core.contract import Contract, TensorSpec
from encephalon.core.inference import (
    InferenceService,
    LoadParameter,
    ModelDescription,
    ModelIndexEntry,
    ModelStatistics,
)
from encephalon.core.serving import serving
from encephalon.core.wire import InferRequest, InferResponse, Tensor
from tests.servers import free_port

WIDE = Contract((TensorSpec("x", "FP32", (-1, -1)),), (TensorSpec("y", "FP32", (-1, -1)),))
NARROW = Contract((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))


class Doubler:
    """A brain that doubles, and does as it is told by the parameter `order`."""

    def __init__(self) -> None:
        self.contract = WIDE
        self.asked = 0
        self.told: list[tuple[str, dict[str, LoadParameter]]] = []

    def server_name(self) -> str:
        return "doubler"

    def ready(self) -> bool:
        return True

    def model_ready(self, name: str, version: str = "") -> bool:
        return bool(self.describe(name))

    def describe(self, name: str, version: str = "") -> ModelDescription:
        if name != "double":
            raise NotFound(f"no brain '{name}' is loaded", brain=name)
        self.asked += 1
        return ModelDescription(name, ("1",), "test", self.contract)

    def statistics(self, name: str = "", version: str = "") -> Sequence[ModelStatistics]:
        return []

    def index(self) -> Sequence[ModelIndexEntry]:
        return [ModelIndexEntry("double", "1", "READY")]

    async def infer(self, request: InferRequest, deadline: float | None = None) -> InferResponse:
        self.contract.check_inputs(request.inputs)
        order = request.parameters.get("order")
        if order == "refuse":
            raise Overloaded("the mailbox is full", region="visual")
        if order == "hang":
            await asyncio.Event().wait()
        (tensor,) = request.inputs
        return InferResponse(
            "double", "1", parameters={"region_ms.visual": 1.0}, outputs=[Tensor.of("y", tensor.array * 2)]
        )

    async def load(self, name: str, parameters: Mapping[str, LoadParameter]) -> None:
        self.told.append((name, dict(parameters)))

    async def unload(self, name: str, parameters: Mapping[str, LoadParameter]) -> None:
        self.told.append((name, {}))


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


@pytest.fixture
async def address(doubler: Doubler) -> AsyncIterator[str]:
    async with serving([InferenceService(doubler).handler()], addresses=["127.0.0.1:0"]) as server:
        yield f"127.0.0.1:{server.ports[0]}"


async def test_a_row_gives_a_row_and_a_batch_gives_a_batch(address: str) -> None:
    async with connect(address) as brains:
        row = await brains.infer("double", x=np.array([1, 2], np.float32))
        np.testing.assert_array_equal(row["y"], np.array([2, 4], np.float32))
        batch = await brains.infer("double", {"x": np.ones((3, 2), np.float32)})
        assert batch["y"].shape == (3, 2)
        assert batch.timings == {"visual": 1.0}


async def test_the_contract_is_asked_for_once(address: str, doubler: Doubler) -> None:
    async with connect(address) as brains:
        await brains.infer("double", x=[1.0])
        asked = doubler.asked
        await brains.infer("double", x=[1.0])
        assert doubler.asked == asked


async def test_a_brain_that_was_replaced_is_asked_anew_after_its_refusal(address: str, doubler: Doubler) -> None:
    async with connect(address) as brains:
        await brains.infer("double", x=[1.0, 2.0, 3.0])
        doubler.contract = NARROW
        with pytest.raises(InvalidInput, match="tensor 'x' came with shape"):
            await brains.infer("double", x=[1.0, 2.0, 3.0])
        assert await brains.contract("double") == NARROW


async def test_errors_come_back_as_their_classes(address: str) -> None:
    async with connect(address) as brains:
        with pytest.raises(Overloaded, match="the mailbox is full") as raised:
            await brains.infer("double", x=[1.0], parameters={"order": "refuse"})
        assert raised.value.details["region"] == "visual"
        with pytest.raises(NotFound, match="no brain 'triple' is loaded"):
            await brains.infer("triple", x=[1.0])
        with pytest.raises(Unsupported):
            await brains.describe("double")


async def test_time_is_bounded(address: str) -> None:
    async with connect(address) as brains:
        with pytest.raises(DeadlineExceeded) as raised:
            await brains.infer("double", x=[1.0], timeout=0.2, parameters={"order": "hang"})
        assert "did not answer within" in raised.value.message


async def test_nobody_there_is_a_sentence() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with connect(address) as brains:
        with pytest.raises(Unavailable, match=f"no coordinator answers on {address}; start one with"):
            await brains.infer("double", x=[1.0])


async def test_brains_are_listed_loaded_and_unloaded(address: str, doubler: Doubler, tmp_path: Path) -> None:
    manifest = tmp_path / "brain.yaml"
    manifest.write_text("brain: double")
    async with connect(address) as brains:
        assert await brains.names() == ["double"]
        assert await brains.ready("double")
        await brains.load("double", manifest)
        await brains.load("double", "brain: other")
        await brains.load("double")
        await brains.unload("double")
        with pytest.raises(NotFound, match="cannot read the manifest"):
            await brains.load("double", tmp_path / "absent.yaml")
    assert doubler.told == [
        ("double", {"config": "brain: double"}),
        ("double", {"config": "brain: other"}),
        ("double", {}),
        ("double", {}),
    ]


async def test_programs_without_an_event_loop_ask_the_same_way(address: str) -> None:
    def program() -> None:
        with connect_blocking(address) as brains:
            assert brains.names() == ["double"]
            assert brains.ready("double")
            assert brains.contract("double") == WIDE
            np.testing.assert_array_equal(brains.infer("double", x=[1.0])["y"], [2.0])
            with pytest.raises(Overloaded):
                brains.infer("double", x=[1.0], parameters={"order": "refuse"})

    await asyncio.to_thread(program)
