"""A region as its users meet it: a process, called over the wire."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from encephalon.core.errors import InvalidInput, NotFound, Unavailable
from encephalon.core.inference import InferenceClient
from encephalon.core.wire import InferRequest, RequestedOutput, Tensor
from encephalon.discovery import Instance, resolve
from encephalon.state import open_key_value
from tests.regions import RegionProcess, infer, manifest, region_process, request, run_region
from tests.waiting import until


async def test_answers_with_its_version_and_its_times() -> None:
    async with region_process(manifest(arguments={"offset": 1.0})) as region, region.client() as client:
        answer = await infer(client, 2.0, rows=3, id="seven")
        assert answer.outputs[0].name == "y"
        assert np.array_equal(answer.outputs[0].array, np.full((3, 4), 3.0, np.float32))
        assert (answer.model_name, answer.model_version, answer.id) == ("echo", "1", "seven")
        assert answer.parameters["batch"] == 3
        assert set(answer.parameters) == {"batch", "compute_ms", "queue_ms"}


async def test_describes_itself() -> None:
    async with region_process(manifest(max_batch=16)) as region, region.client() as client:
        described = await client.describe("echo")
        assert described.max_batch == 16
        assert [spec.name for spec in described.contract.inputs] == ["x"]
        assert await client.ready()
        assert await client.model_ready("echo")
        await infer(client, rows=2)
        await infer(client)
        statistics = (await client.statistics("echo"))[0]
        assert (statistics.success.count, statistics.inference_count, statistics.execution_count) == (2, 3, 2)
        assert statistics.last_inference_ms > 0
        assert [(entry.name, entry.version, entry.state) for entry in await client.index()] == [("echo", "1", "READY")]
        with pytest.raises(NotFound, match="no model 'other' here"):
            await client.metadata("other")


async def test_metrics_are_served() -> None:
    async with region_process(manifest()) as region, region.client() as client:
        for _ in range(5):
            await infer(client, rows=2)
        with pytest.raises(InvalidInput):
            await client.infer(InferRequest("echo"), 10)

        version = {"region": "echo", "network": "diagnostics/001", "version": "1"}
        call = {"method": "inference.GRPCInferenceService/ModelInfer", "status": "OK"}
        assert await region.metric("encephalon_region_requests_total", **version, outcome="OK") == 5
        assert await region.metric("encephalon_region_requests_total", **version, outcome="INVALID_ARGUMENT") == 1
        assert await region.metric("encephalon_region_batch_rows_sum", **version) == 10
        assert await region.metric("encephalon_rpc_seconds_count", **call) == 5
        assert await region.waiting() == 0


async def test_bad_requests_are_refused_with_a_sentence() -> None:
    async with region_process(manifest(max_batch=4)) as region, region.client() as client:
        x = np.zeros((1, 2), np.float32)
        for bad, sentence in [
            (InferRequest("echo"), "input 'x' is missing|no input came"),
            (InferRequest("echo", inputs=[Tensor.of("z", x)]), "unknown input 'z'; expected x"),
            (InferRequest("echo", inputs=[Tensor.of("x", x.astype(np.float64))]), "came as FP64, expected FP32"),
            (InferRequest("echo", inputs=[Tensor.of("x", x[0])]), r"shape \[2\]"),
            (InferRequest("echo", inputs=[Tensor.of("x", np.zeros((9, 2), np.float32))]), "9 rows.*at most 4"),
            (InferRequest("echo", inputs=[Tensor.of("x", x)], outputs=[RequestedOutput("q")]), "'q'"),
            (InferRequest("echo", inputs=[Tensor.of("x", x)], parameters={"priority": -3}), "priority"),
        ]:
            with pytest.raises(InvalidInput, match=sentence):
                await client.infer(bad, 10)
        with pytest.raises(NotFound, match="version 1 is in service"):
            await client.infer(request(model_version="9"), 10)
        assert (await infer(client)).model_version == "1"


async def test_nan_is_a_number_like_any_other() -> None:
    async with region_process(manifest()) as region, region.client() as client:
        answer = await infer(client, float("nan"))
        assert np.isnan(answer.outputs[0].array).all()


async def test_one_poisoned_message_spoils_no_other() -> None:
    text = manifest("diagnostics/004", arguments={"fault": "raise", "trigger": 13.0}, max_delay_ms=50)
    async with region_process(text) as region, region.client() as client:
        values = [13.0 if number == 5 else float(number) for number in range(12)]
        answers = await asyncio.gather(*(infer(client, value) for value in values), return_exceptions=True)
        for value, answer in zip(values, answers, strict=True):
            if value == 13.0:
                assert isinstance(answer, Exception)
                assert "region 'echo' failed" in str(answer)
            else:
                assert not isinstance(answer, BaseException)
                assert answer.outputs[0].array[0, 0] == value


@pytest.mark.parametrize("fault", ["wrong_shape", "wrong_rows", "wrong_datatype", "missing_output"])
async def test_a_network_that_breaks_its_contract_is_named(fault: str) -> None:
    text = manifest("diagnostics/004", arguments={"fault": fault, "trigger": 13.0})
    async with region_process(text) as region, region.client() as client:
        with pytest.raises(Exception, match="region 'echo' failed: diagnostics/004 version 1: it"):
            await infer(client, 13.0)
        assert (await infer(client, 1.0)).outputs[0].array[0, 0] == 1.0


async def test_messages_share_batches() -> None:
    text = manifest("diagnostics/003", arguments={"delay_ms": 50})
    async with region_process(text) as region, region.client() as client:
        began = time.monotonic()
        answers = await asyncio.gather(*(infer(client, float(n)) for n in range(64)))
        seconds = time.monotonic() - began
    assert [answer.outputs[0].array[0, 0] for answer in answers] == [float(n) for n in range(64)]
    assert max(int(answer.parameters["batch"]) for answer in answers) > 8
    assert seconds < 64 * 0.05 / 4


async def test_a_caller_that_goes_away_stops_the_work_within_100_ms() -> None:
    text = manifest("diagnostics/003", arguments={"delay_ms": 600.0}, max_batch=1)
    async with region_process(text) as region, region.client() as client, region.client() as other:
        for _ in range(3):
            call = asyncio.create_task(infer(client))
            await until(region.in_flight)
            call.cancel()
            # The next message is computed as soon as the worker is free.
            answer = await infer(other)
            assert float(answer.parameters["queue_ms"]) < 100


async def test_announces_itself_and_leaves(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    unix = tmp_path / "echo.sock"
    async with (
        region_process(manifest(), "--state", url, "--unix", str(unix), "--namespace", "here") as region,
        open_key_value(url) as store,
    ):
        (instance,) = await resolve(store, "here", "test", "echo")
        assert (instance.address, instance.local_address) == (region.address, f"unix:{unix}")
        assert (instance.network, instance.version) == ("diagnostics/001", "1")
        assert instance.state == Instance.STATE_READY
        async with InferenceClient(instance.local_address) as client:
            assert (await infer(client, 5.0)).outputs[0].array[0, 0] == 5.0
        region.terminate()
        assert await region.ended() == 0
        assert await resolve(store, "here", "test", "echo") == []
        assert not unix.exists()


async def test_sigterm_answers_every_admitted_request_and_refuses_new_ones() -> None:
    text = manifest("diagnostics/003", arguments={"delay_ms": 100.0}, max_batch=2, max_delay_ms=0)
    async with region_process(text) as region, region.client() as client:
        stream = await client.open_stream()
        unary = [asyncio.create_task(infer(client, float(n))) for n in range(10)]
        streamed = [asyncio.create_task(stream.infer(request(float(n)), 10)) for n in range(10)]
        await until(lambda: enough_wait(region, 15))
        region.terminate()
        answers = await asyncio.gather(*unary, *streamed, return_exceptions=True)
        # Fifteen were seen to wait; of the others one may have arrived when the region was leaving already.
        answered = [(n, answer) for n, answer in enumerate(answers) if not isinstance(answer, Unavailable)]
        assert len(answered) >= 15
        for n, answer in answered:
            assert not isinstance(answer, BaseException), answer
            assert answer.outputs[0].array[0, 0] == float(n % 10)
        with pytest.raises(Unavailable):
            await infer(client)
        assert await region.ended(within=3.0) == 0
        await stream.close()


async def enough_wait(region: RegionProcess, messages: int) -> bool:
    return await region.waiting() >= messages


async def test_draining_ends_in_its_time_and_a_second_signal_ends_it_at_once() -> None:
    slow = manifest("diagnostics/003", arguments={"delay_ms": 2000.0}, max_batch=1)
    async with region_process(slow, "--drain-s", "0.3") as region, region.client() as client:
        call = asyncio.create_task(infer(client))
        await until(region.in_flight)
        began = time.monotonic()
        region.terminate()
        with pytest.raises(Unavailable):
            await call
        assert await region.ended() == 0
        assert time.monotonic() - began < 2.0
    async with region_process(slow, "--drain-s", "60") as region, region.client() as client:
        call = asyncio.create_task(infer(client))
        await until(region.in_flight)
        region.terminate()
        await until(lambda: "draining" in region.log)
        region.process.send_signal(signal.SIGINT)
        assert await region.ended(within=1.0) == 128 + signal.SIGINT
        with pytest.raises(Unavailable):
            await call


def test_what_a_user_can_mend_is_one_sentence(tmp_path: Path) -> None:
    brain = tmp_path / "brain.yaml"
    brain.write_text(manifest())
    broken = tmp_path / "broken.yaml"
    broken.write_text("brain: [")
    for code, sentence, given in [
        (2, "has no region 'nope'; it has echo", run_region(brain, region="nope")),
        (2, "cannot read the manifest", run_region(tmp_path / "none.yaml")),
        (2, "broken.yaml line 1", run_region(broken)),
        (2, "--max-message-bytes", run_region(brain, "--max-message-bytes", "-1")),
        (1, "out of reach", run_region(brain, "--state", "etcd://127.0.0.1:1")),
        (2, "unknown scheme", run_region(brain, "--state", "foo")),
        (2, "no address", run_region(brain, "--listen", "nonsense")),
        (1, "no folder", run_region(brain, "--unix", str(tmp_path / "no" / "such.sock"))),
    ]:
        assert given[0] == code, given
        assert sentence in given[1]
        plain = [line for line in given[1].splitlines() if not line.startswith("{")]
        assert len(plain) == 1, given[1]


async def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    brain = tmp_path / "brain.yaml"
    brain.write_text(manifest())
    async with region_process(manifest()) as region:
        code, text = await asyncio.to_thread(run_region, brain, "--listen", region.address)
        assert code == 1
        assert text.startswith(f"cannot listen on {region.address}: the port is in use by another process")
        assert text.count("\n") == 1
        port = str(region.metrics_port)
        code, text = await asyncio.to_thread(run_region, brain, "--metrics-port", port)
        assert code == 1
        assert text.startswith(f"the metrics port 127.0.0.1:{port} cannot be used")


async def test_logs_are_json_lines_that_name_region_and_request() -> None:
    text = manifest("diagnostics/004", arguments={"fault": "raise", "trigger": 13.0})
    async with region_process(text) as region, region.client() as client:
        with pytest.raises(Exception, match="failed"):
            await infer(client, 13.0, id="the-one")
        (line,) = [line for line in region.lines if line["event"] == "a network failed"]
        assert line["region"] == "echo"
        assert line["network"] == "diagnostics/004"
        assert json.dumps(line["exception"]).find("as it was told to") > 0
