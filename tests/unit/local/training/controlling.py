"""The control node of a run that is only pretended: announces itself, serves TrainingService, tells the statuses of
`statuses`, one every `PRETENDED_STEP_S`, and writes the end of the run as the real one does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.api.training.v1.training_pb2 import RunState, RunStatus, StopResponse
from encephalon.core.serving import serving
from encephalon.discovery import announced
from encephalon.state import KeyValue, open_key_value
from encephalon.training.runs import INSTANCES, RunSettings, keys_of
from tests.unit.local.training.statuses import evaluation, starting, statuses

__all__ = ["control"]

SERVICE = "encephalon.api.training.v1.TrainingService"


class Controller:
    def __init__(self, run: str, epochs: int) -> None:
        self.run = run
        self.told = starting(run)
        self.epochs = epochs
        self.stopping = asyncio.Event()
        self.changed = asyncio.Condition()

    def handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Watch": grpc.unary_stream_rpc_method_handler(self.Watch),
                "Stop": grpc.unary_unary_rpc_method_handler(self.Stop),
            },
        )

    async def Watch(self, message: bytes, context: Any) -> AsyncIterator[bytes]:
        told = None
        while told is None or told.state < RunState.STATE_SUCCEEDED:
            async with self.changed:
                if told is self.told:
                    await self.changed.wait()
                told = self.told
            yield told.SerializeToString()

    async def Stop(self, message: bytes, context: Any) -> bytes:
        self.stopping.set()
        return StopResponse().SerializeToString()

    async def tell(self, status: RunStatus) -> None:
        async with self.changed:
            self.told = status
            self.changed.notify_all()

    async def learn(self, how: str, step_s: float) -> RunState:
        """To the end of the run."""
        for status in statuses(self.run, self.epochs):
            await self.tell(status)
            try:
                await asyncio.wait_for(self.stopping.wait(), step_s)
            except TimeoutError:
                continue
            return await self.end(RunState.STATE_STOPPED, "it was asked to stop")
        if how == "wait":
            await self.stopping.wait()
            return await self.end(RunState.STATE_STOPPED, "it was asked to stop")
        if how == "fail":
            return await self.end(RunState.STATE_FAILED, "worker-1, region 'visual': the gradient of 'a' is not finite")
        return await self.end(RunState.STATE_SUCCEEDED, "all epochs are done")

    async def end(self, state: RunState.State.ValueType, sentence: str) -> RunState:
        last = RunStatus()
        last.CopyFrom(self.told)
        last.state, last.sentence = state, sentence
        if state == RunState.STATE_SUCCEEDED:
            last.made.update(
                {"visual": "network:digits-visual@1", "brain": "brain:digits@2", "run": f"run:{self.run}@1"}
            )
            last.test.CopyFrom(evaluation(1, "test"))
        await self.tell(last)
        return RunState(
            run=self.run,
            state=state,
            sentence=sentence,
            evaluations=last.evaluations,
            made=last.made,
            test=last.test if last.HasField("test") else None,
            seconds=last.seconds,
            samples=last.samples,
            bytes=last.bytes,
        )


async def control(run: str, how: str) -> None:
    namespace = os.environ["ENCEPHALON_NAMESPACE"]
    async with open_key_value(os.environ["ENCEPHALON_STATE"]) as store:
        settings = RunSettings.read(await value(store, keys_of(namespace, run)[0]))
        controller = Controller(run, settings.epochs)
        async with serving([controller.handler()], addresses=["127.0.0.1:0"]) as server:
            instance = Instance(
                brain=INSTANCES + run,
                region="controller",
                id=f"controller-{os.getpid()}",
                address=server.addresses[0],
                state=Instance.STATE_READY,
            )
            async with announced(store, namespace, instance):
                state = await controller.learn(how, float(os.environ.get("PRETENDED_STEP_S", "0.02")))
                await store.put(keys_of(namespace, run)[1], state.SerializeToString())


async def value(store: KeyValue, key: str) -> bytes:
    entry = await store.get(key)
    assert entry is not None, f"there is no {key}"
    return entry.value
