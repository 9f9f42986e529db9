"""Loading, replacing and unloading brains while they are used, with actors in this process."""

from __future__ import annotations

import asyncio

import pytest

from encephalon.api.discovery.v1.instance_pb2 import Instance
from encephalon.coordinator.admission import Admission
from encephalon.coordinator.brains import Brains
from encephalon.coordinator.link import LinkOptions
from encephalon.coordinator.members import Connections
from encephalon.coordinator.replicas import Replica
from encephalon.coordinator.service import described
from encephalon.core.errors import InvalidInput, InvalidManifest, NotFound, Overloaded, Unavailable
from encephalon.core.wire import RequestedOutput
from tests.unit.coordinator.brains import Region, ask, hang, pair, value
from tests.waiting import until


class Site:
    """Brains named `pair` whose regions are here."""

    def __init__(self, max_requests: int = 100, **regions: Region) -> None:
        self.regions = {"first": Region(), "second": Region(), "join": Region()} | regions
        actors = {name: [region] for name, region in self.regions.items()}
        self.admission = Admission(max_requests, 1 << 20, 1 << 16)
        self.brains = Brains(
            admission=self.admission,
            links=LinkOptions(grace_s=0.05),
            connections=Connections(colocated={"pair": actors}),
        )


async def loaded(**regions: Region) -> Site:
    site = Site(**regions)
    await site.brains.load("pair", {"config": pair().to_json()})
    return site


async def test_a_loaded_brain_answers_and_counts():
    site = await loaded()
    response = await site.brains.infer(ask(left=1, right=2))
    assert value(response, "sum") == 3
    statistics = site.brains.statistics("pair")[0]
    assert (statistics.inference_count, statistics.success.count, statistics.fail.count) == (1, 1, 0)
    assert site.brains.ready()
    assert site.brains.model_ready("pair", "1")
    assert site.admission.requests == site.admission.nbytes == 0


async def test_only_the_wanted_outputs_are_computed():
    site = await loaded()
    request = ask(left=1)
    request.outputs = [RequestedOutput("one")]
    response = await site.brains.infer(request)
    assert [tensor.name for tensor in response.outputs] == ["one"]
    assert not site.regions["second"].asked


async def test_bad_requests_get_a_sentence_and_reach_no_region():
    site = await loaded()
    with pytest.raises(InvalidInput, match="unknown input 'up'"):
        await site.brains.infer(ask(up=1))
    request = ask(left=1)
    request.model_version = "7"
    with pytest.raises(NotFound, match="version 7 is not"):
        await site.brains.infer(request)
    request.model_name = "pear"
    with pytest.raises(NotFound, match="no brain 'pear' is loaded; loaded are: pair"):
        await site.brains.infer(request)
    assert not site.regions["first"].asked
    assert site.admission.requests == 0
    assert site.brains.statistics("pair")[0].fail.count == 1


async def test_too_much_at_once_is_refused_at_once():
    site = Site(max_requests=3, first=Region(hang))
    await site.brains.serve(pair())
    running = [asyncio.ensure_future(site.brains.infer(ask(left=1, right=2))) for _ in range(3)]
    await until(lambda: len(site.regions["first"].asked) == 3)
    with pytest.raises(Overloaded):
        await site.brains.infer(ask(left=1, right=2))
    for request in running:
        request.cancel()
    await asyncio.wait(running)
    assert site.admission.requests == 0
    await until(lambda: site.regions["first"].cancelled == 3, within=0.1)


async def test_the_deadline_of_the_server_is_used_when_none_is_given():
    site = Site(first=Region(hang))
    site.brains._default_timeout_s = 0.05
    await site.brains.serve(pair())
    with pytest.raises(Exception, match="the time of the request is used up"):
        await site.brains.infer(ask(left=1, right=2))


async def test_replacing_lets_running_requests_finish_on_the_old():
    free = asyncio.Event()
    site = Site(first=Region(lambda _: free.wait()))
    await site.brains.serve(pair())
    old = asyncio.ensure_future(site.brains.infer(ask(left=1, right=2)))
    await until(lambda: site.regions["first"].asked)
    new = pair().to_json().replace('"one":"first.y"', '"two":"second.y"')
    await site.brains.load("pair", {"config": new})
    free.set()
    assert [tensor.name for tensor in (await old).outputs] == ["sum", "one"]
    assert (await old).model_version == "1"
    response = await site.brains.infer(ask(left=1, right=2))
    assert [tensor.name for tensor in response.outputs] == ["sum", "two"]
    assert response.model_version == "2"


async def test_a_bad_manifest_keeps_the_old():
    site = await loaded()
    with pytest.raises(InvalidManifest, match="pair line 1"):
        await site.brains.load("pair", {"config": pair().to_json().replace("join.a", "join.c")})
    with pytest.raises(InvalidManifest, match="is of brain 'pair', but is to be loaded as 'other'"):
        await site.brains.load("other", {"config": pair().to_json()})
    with pytest.raises(InvalidInput, match="unknown parameter 'file:1/model'"):
        await site.brains.load("pair", {"file:1/model": b""})
    assert value(await site.brains.infer(ask(left=1, right=2)), "sum") == 3


async def test_unloading_finishes_what_runs_and_can_be_taken_back():
    free = asyncio.Event()
    site = Site(first=Region(lambda _: free.wait()))
    await site.brains.serve(pair())
    running = asyncio.ensure_future(site.brains.infer(ask(left=1, right=2)))
    await until(lambda: site.regions["first"].asked)
    await site.brains.unload("pair", {})
    with pytest.raises(NotFound):
        await site.brains.infer(ask(left=1, right=2))
    assert [(entry.state, entry.reason) for entry in site.brains.index()] == [("UNAVAILABLE", "unloaded")]
    free.set()
    assert value(await running, "sum") == 3
    await site.brains.load("pair", {})
    assert value(await site.brains.infer(ask(left=1, right=2)), "sum") == 3
    with pytest.raises(NotFound):
        await site.brains.load("other", {})
    with pytest.raises(NotFound):
        await site.brains.unload("other", {})


async def test_readiness_says_which_region_is_missing():
    told: asyncio.Queue[list[Instance]] = asyncio.Queue()

    async def watch(_):
        while True:
            yield await told.get()

    brains = Brains(
        admission=Admission(10, 1 << 20, 1 << 20),
        links=LinkOptions(grace_s=0.01),
        connections=Connections(colocated={"pair": {"first": [Region()], "join": [Region()]}}),
        watch=watch,
    )
    await brains.serve(pair("optional: true", ""))
    assert not brains.model_ready("pair")
    assert brains.index()[0].reason == "region 'second' has no replica"
    await brains.serve(pair("optional: true", "optional: true"))
    assert brains.model_ready("pair")
    await brains.serve(pair("", ""))
    with pytest.raises(Unavailable):
        await brains.infer(ask(left=1, right=2))
    await brains.close()


async def test_the_description_shows_the_graph():
    site = await loaded()
    model = site.brains.describe("pair")
    assert model.versions == ("1",)
    assert model.max_batch == 32
    join = next(step for step in model.steps if step.model_name == "join")
    assert join.input_map == {"a": "one", "b": "second.y"}
    assert join.output_map == {"y": "sum"}
    first = next(step for step in model.steps if step.model_name == "first")
    assert first.input_map == {"x": "left"}


async def test_describe_brain_tells_regions_and_replicas():
    site = await loaded()
    await site.brains.infer(ask(left=1, right=2))
    answer = described(site.brains.served("pair"))
    assert answer.brain == "pair"
    first = next(region for region in answer.regions if region.name == "first")
    assert first.network == "diagnostics/001"
    assert first.requests == 1
    assert first.latency_ms_p50 > 0
    assert [replica.ejected for replica in first.replicas] == [False]


async def test_a_replica_whose_connection_is_gone_is_described_as_set_aside():
    class Gone(Replica):
        broken = True

    site = await loaded()
    site.brains.served("pair").links["first"].add(Gone("gone"))
    answer = described(site.brains.served("pair"))
    assert {replica.instance.id: replica.ejected for replica in answer.regions[0].replicas}["gone"]


async def test_answers_without_some_region_are_counted():
    site = Site()
    await site.brains.serve(pair("optional: true", "optional: true"))
    incomplete = site.brains.served("pair").metrics.incomplete
    before = incomplete.value
    await site.brains.infer(ask(left=1, right=2))
    assert incomplete.value == before
    await site.brains.infer(ask(left=1))
    assert incomplete.value == before + 1
