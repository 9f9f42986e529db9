from __future__ import annotations

import asyncio
import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from encephalon.core.errors import FailedPrecondition
from encephalon.core.metrics import Counters, Gauge, Histograms, metrics_served


async def test_what_is_counted_is_served() -> None:
    registry = CollectorRegistry()
    counters = Counters("calls", "Calls.", ["method"], registry)
    histograms = Histograms("seconds", "Time.", ["method"], (0.1, 1.0), registry)
    gauge = Gauge("waiting", "Messages.", registry=registry)
    counters.labels("a").value += 3
    for value in (0.05, 0.1, 0.5, 7.0):
        histograms.labels("a").observe(value)
    gauge.show(read=lambda: 5)

    async with metrics_served(0, registry=registry) as port:
        text = await asyncio.to_thread(fetch, port)
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["calls_total", (("method", "a"),)] == 3
    assert samples["seconds_bucket", (("le", "0.1"), ("method", "a"))] == 2
    assert samples["seconds_bucket", (("le", "1.0"), ("method", "a"))] == 3
    assert samples["seconds_bucket", (("le", "+Inf"), ("method", "a"))] == 4
    assert samples["seconds_sum", (("method", "a"),)] == pytest.approx(7.65)
    assert samples["waiting", ()] == 5


def test_children_are_forgotten_by_their_first_labels() -> None:
    registry = CollectorRegistry()
    counters = Counters("calls", "Calls.", ["region", "version"], registry)
    for region, version in (("a", "1"), ("a", "2"), ("b", "1")):
        counters.labels(region, version).value += 1
    counters.remove("a")
    assert registry.get_sample_value("calls_total", {"region": "a", "version": "1"}) is None
    assert registry.get_sample_value("calls_total", {"region": "b", "version": "1"}) == 1


async def test_a_port_in_use_is_one_sentence_and_none_serves_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(FailedPrecondition, match=f"metrics port 127.0.0.1:{port}"):
            async with metrics_served(port):
                pass
    async with metrics_served(None) as nothing:
        assert nothing is None


def fetch(port: int | None) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
