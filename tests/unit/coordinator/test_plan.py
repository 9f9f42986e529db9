"""A plan computes what the plainest reading of the rules computes, on random brains with absences and failures."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encephalon.coordinator.plan import Plan
from encephalon.core.errors import EncephalonError, Internal, InvalidInput
from encephalon.library.brains import Brain, load_manifest, parse_manifest
from tests.unit.coordinator.brains import Region, ask, link, pair, run, value
from tests.unit.library.test_brains import EXAMPLES

INPUTS = ("u", "v")


class Failed(Exception):
    """The request as a whole fails."""


@st.composite
def manifests(draw) -> Brain:
    """Joins and identities over two optional inputs; every region is an output, so none is superfluous."""
    spec = {"datatype": "FP32", "shape": [-1, -1], "optional": True}
    regions, pathways = {}, []
    sources = list(INPUTS)
    for number in range(draw(st.integers(1, 6))):
        name = f"r{number}"
        joins = draw(st.booleans())
        regions[name] = {"network": "diagnostics/002" if joins else "diagnostics/001"}
        for target in ("a", "b") if joins else ("x",):
            source = draw(st.sampled_from(sources))
            optional = draw(st.booleans()) if "." in source else False
            pathways.append({"from": source, "to": f"{name}.{target}", "optional": optional})
        sources.append(f"{name}.y")
    used = {pathway["from"] for pathway in pathways}
    return parse_manifest(
        json.dumps(
            {
                "brain": "random",
                "inputs": {name: spec for name in INPUTS if name in used},
                "regions": regions,
                "pathways": pathways,
                "outputs": {name: f"{name}.y" for name in regions},
            }
        )
    )


def evaluate(brain: Brain, given_values: dict[str, float], broken: set[str]) -> dict[str, float]:
    """The rules, word for word: what every region that is there computes. Failed when a failure is nobody's absence."""
    values: dict[str, float | None] = {}
    for region in brain.regions:
        name = region.name
        incoming = [path for path in brain.pathways if path.target.region == name]
        required = {spec.name for spec in region.contract.inputs if not spec.optional}
        terms = {}
        for path in incoming:
            source = values[path.source.region] if path.source.region else given_values.get(path.source.tensor)
            if source is None and path.source.region and not path.optional:
                raise Failed
            terms[path.target.tensor] = source
        there = [term for term in terms.values() if term is not None]
        if not there or any(terms[need] is None for need in required):
            values[name] = None
        elif name in broken:
            outgoing = [path for path in brain.pathways if path.source.region == name]
            if not outgoing or any(not path.optional for path in outgoing):
                raise Failed
            values[name] = None
        else:
            values[name] = sum(there)
    found = {name: amount for name, amount in values.items() if amount is not None}
    if not found:
        raise Failed
    return found


def boom(_):
    raise Internal("boom")


@settings(max_examples=150, deadline=None)
@given(brain=manifests(), data=st.data())
async def test_random_brains(brain, data):
    names = [spec.name for spec in brain.inputs]
    sent = {name: float(2**place) for place, name in enumerate(names) if data.draw(st.booleans(), label=name)}
    broken = data.draw(st.sets(st.sampled_from([region.name for region in brain.regions])), label="broken")
    links = {
        region.name: link(region.name, Region(boom if region.name in broken else None), brain="random")
        for region in brain.regions
    }
    try:
        expected = evaluate(brain, sent, broken)
    except Failed:
        with pytest.raises(EncephalonError):
            await run(brain, links, ask(**sent))
        return
    response = await run(brain, links, ask(**sent))
    assert {tensor.name: value(response, tensor.name) for tensor in response.outputs} == expected
    missing = {name for name in response.parameters["missing_regions"].split(",") if name}
    assert missing == {region.name for region in brain.regions} - set(expected)


def test_steps_of_the_digits():
    plan = Plan(load_manifest(EXAMPLES / "digits.yaml"))
    by_name = {step.region: step for step in plan.steps}
    assert by_name["association"].waits == 2
    assert by_name["association"].essential
    assert not by_name["visual"].essential
    assert by_name["visual"].patience_s == 2.0


def test_only_what_is_asked_for_is_run():
    plan = Plan(pair())
    assert [step.region for step in plan.only(["one"]).steps] == ["first"]
    assert len(plan.only(["sum"]).steps) == 3
    assert plan.only(["one"]) is plan.only(["one"])
    with pytest.raises(InvalidInput, match="unknown output 'two'; there are sum, one"):
        plan.only(["two"])


def test_plans_for_choices_are_bounded():
    outputs = {f"o{number}": "first.y" for number in range(9)}
    manifest = json.loads(pair().to_json())
    manifest["outputs"] |= outputs
    plan = Plan(parse_manifest(json.dumps(manifest)))
    for mask in range(1, 200):
        plan.only([name for place, name in enumerate(outputs) if mask >> place & 1])
    assert len(plan._pruned) <= 64
