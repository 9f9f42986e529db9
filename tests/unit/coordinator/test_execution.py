from __future__ import annotations

import asyncio
import time

import pytest

from encephalon.core.errors import DeadlineExceeded, Internal, InvalidInput, Unavailable
from encephalon.core.wire import InferResponse, Tensor
from encephalon.library.brains import parse_manifest
from tests.unit.coordinator.brains import Region, ask, execution, hang, link, pair, run, value
from tests.waiting import until


def fail(error: Exception):
    def behaviour(_):
        raise error

    return behaviour


def links(first=None, second=None, join=None):
    return {
        "first": link("first", first or Region()),
        "second": link("second", second or Region()),
        "join": link("join", join or Region()),
    }


async def test_answers_with_timings_and_versions():
    response = await run(pair(), links(), ask(left=1, right=2))
    assert value(response, "sum") == 3
    assert value(response, "one") == 1
    assert (response.model_name, response.model_version, response.id) == ("pair", "1", "7")
    assert response.parameters["missing_regions"] == ""
    for region in ("first", "second", "join"):
        assert response.parameters[f"region_ms.{region}"] >= 0
        assert response.parameters[f"queue_ms.{region}"] == 0.5
        assert response.parameters[f"version.{region}"] == "1"


async def test_steps_run_side_by_side():
    both = asyncio.Event()
    waiting = []

    def meet(request):
        waiting.append(request)
        if len(waiting) == 2:
            both.set()
        return both.wait()

    response = await run(pair(), links(Region(meet), Region(meet)), ask(left=1, right=2), seconds=1)
    assert value(response, "sum") == 3


async def test_an_absent_input_leaves_its_region_out():
    join = Region()
    response = await run(pair("optional: true", "optional: true"), links(join=join), ask(right=2))
    assert value(response, "sum") == 2
    assert value(response, "one") is None
    assert response.parameters["missing_regions"] == "first"
    assert [tensor.name for tensor in join.asked[0].inputs] == ["b"]


async def test_an_absent_source_behind_a_required_pathway_fails_the_request():
    with pytest.raises(InvalidInput, match="region 'join' needs region 'first'"):
        await run(pair(), links(), ask(right=2))


async def test_nothing_to_compute():
    with pytest.raises(InvalidInput, match="no output can be computed"):
        await run(pair("optional: true", "optional: true"), links(), ask())


async def test_a_failure_behind_an_optional_pathway_is_an_absence():
    regions = links(first=Region(fail(Internal("boom"))))
    response = await run(pair("optional: true", "optional: true"), regions, ask(left=1, right=2))
    assert value(response, "sum") == 2
    assert response.parameters["missing_regions"] == "first"


async def test_what_the_caller_sent_wrong_the_caller_hears():
    regions = links(first=Region(fail(InvalidInput("tensor 'x' is too wide"))))
    with pytest.raises(InvalidInput, match="region 'first': tensor 'x' is too wide"):
        await run(pair("optional: true", "optional: true"), regions, ask(left=1, right=2))


async def test_a_required_failure_names_the_region_and_cancels_the_siblings():
    second = Region(hang)
    with pytest.raises(Internal, match="region 'first': boom") as caught:
        await run(pair(), links(first=Region(fail(Internal("boom"))), second=second), ask(left=1, right=2))
    assert caught.value.details["region"] == "first"
    await until(lambda: second.cancelled == 1, within=0.1)


async def test_all_senses_failed_gives_the_cause():
    dead = Region(fail(Internal("boom")))
    with pytest.raises(Internal, match="region 'first': boom"):
        await run(pair("optional: true", "optional: true"), links(first=dead, second=dead), ask(left=1, right=2))


async def test_a_late_sense_is_left_out_after_its_timeout():
    first = Region(hang)
    brain = pair("optional: true, timeout_ms: 50", "optional: true")
    started = time.monotonic()
    response = await run(brain, links(first=first), ask(left=1, right=2))
    assert 0.04 < time.monotonic() - started < 1
    assert value(response, "sum") == 2
    assert value(response, "one") is None
    await until(lambda: first.cancelled == 1, within=0.1)


async def test_a_late_required_region_fails_the_request():
    with pytest.raises(DeadlineExceeded, match="region 'first' did not answer within 50 ms"):
        await run(pair("timeout_ms: 50"), links(first=Region(hang)), ask(left=1, right=2))


async def test_the_deadline_names_who_still_runs():
    with pytest.raises(DeadlineExceeded, match="still running: region 'first'"):
        await run(pair(), links(first=Region(hang)), ask(left=1, right=2), seconds=0.05)


async def test_a_cancelled_request_stops_in_every_region():
    first, second = Region(hang), Region(hang)
    running = asyncio.ensure_future(run(pair(), links(first, second), ask(left=1, right=2)))
    await until(lambda: first.asked and second.asked, within=1)
    running.cancel()
    await until(lambda: first.cancelled == second.cancelled == 1, within=0.1)


async def test_an_answer_that_breaks_its_contract_is_the_fault_of_its_region():
    class Wrong(Region):
        async def infer(self, request, deadline):
            response = await super().infer(request, deadline)
            response.outputs = [response.outputs[0].renamed("z")]
            return response

    with pytest.raises(Internal, match="region 'first': the answer lacks the output 'y'"):
        await run(pair(), links(first=Wrong()), ask(left=1, right=2))


async def test_a_region_without_a_replica_is_named_within_its_grace():
    regions = links() | {"first": link("first")}
    started = time.monotonic()
    with pytest.raises(Unavailable, match="region 'first' has no replica"):
        await run(pair(), regions, ask(left=1, right=2))
    assert time.monotonic() - started < 0.5


async def test_the_timeout_parameter_is_not_passed_on():
    first = Region()
    request = ask(left=1, right=2)
    request.parameters = {"timeout": 5, "priority": 2}
    await run(pair(), links(first=first), request)
    assert first.asked[0].parameters == {"priority": 2}


class Immediate(Region):
    """Answers without waiting."""

    def infer_now(self, request, deadline):
        self.asked.append(request)
        if self.behaviour is not None:
            self.behaviour(request)
        total = sum(tensor.array for tensor in request.inputs)
        return InferResponse(request.model_name, self.version, request.id, {}, [Tensor.of("y", total)])


async def test_regions_that_answer_at_once_need_no_turn_of_the_loop():
    request = ask(left=1, right=2)
    running = execution(pair(), links(Immediate(), Immediate(), Immediate()), request).run()
    with pytest.raises(StopIteration) as ended:
        running.send(None)
    assert value(ended.value.value, "sum") == 3


async def test_a_failure_at_once_is_a_failure():
    regions = links(first=Immediate(fail(Internal("boom"))))
    with pytest.raises(Internal, match="region 'first': boom"):
        await run(pair(), regions, ask(left=1, right=2))


async def test_a_long_chain_of_answers_at_once_is_no_deep_stack():
    count = 256
    regions = "".join(f"  r{number}: {{network: diagnostics/001}}\n" for number in range(count))
    paths = "".join(f"  - {{from: r{number}.y, to: r{number + 1}.x}}\n" for number in range(count - 1))
    brain = parse_manifest(
        "brain: chain\ninputs:\n  x: {datatype: FP32, shape: [-1, -1]}\nregions:\n"
        f"{regions}pathways:\n  - {{from: x, to: r0.x}}\n{paths}outputs:\n  y: r{count - 1}.y\n"
    )
    chain = {f"r{number}": link(f"r{number}", Immediate(), brain="chain") for number in range(count)}
    assert value(await run(brain, chain, ask(x=5)), "y") == 5


async def test_the_bytes_of_activations_are_counted():
    regions = links(Immediate(), Region(), Immediate())
    counted = [(each.metrics.sent.value, each.metrics.received.value) for each in regions.values()]
    await run(pair(), regions, ask(left=1, right=2))
    now = [(each.metrics.sent.value, each.metrics.received.value) for each in regions.values()]
    # Rows of two FP32 numbers.
    grown = [(sent - old, received - gone) for (sent, received), (old, gone) in zip(now, counted, strict=True)]
    assert grown == [(8, 8), (8, 8), (16, 8)]
