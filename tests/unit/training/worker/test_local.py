"""A share in one process: where it waits, what it sends and when, in parts or as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as parameter_pb
from encephalon.areas.torch_network import AreaModule, TorchNetwork
from encephalon.core.errors import Cancelled, FailedPrecondition, Unavailable
from encephalon.learning.brain import LearningBrain
from encephalon.learning.losses import losses
from encephalon.learning.region import LearningRegion
from encephalon.learning.routing import Routing
from encephalon.learning.samples import Batch
from encephalon.library.areas import find_network
from encephalon.library.brains import parse_manifest
from encephalon.training.worker.local import Local
from tests.unit.learning.brains import brain_of, settings_of
from tests.unit.training.worker.fakes import FakeClient, share_of

LAYOUT = parameter_pb.Layout(shards=1)


def batch(rows: int = 6) -> Batch:
    drawn = torch.Generator().manual_seed(3)
    inputs = {name: torch.randn(rows, 3, generator=drawn) for name in ("x", "z")}
    return Batch(inputs, torch.arange(rows) % 3)


def local(brain: LearningBrain, at_once: int | None = None, **more: Any) -> tuple[Local, FakeClient]:
    client = FakeClient(brain.state())
    made = Local(brain, settings_of(**more), lambda _: client, at_once=at_once)
    made.begin(LAYOUT)
    return made, client


def expected(rows: Batch, divisor: int) -> dict[str, Tensor | None]:
    brain = brain_of().train()
    torch.manual_seed(5)
    total, _ = losses(brain(rows.inputs), rows.labels, settings_of())
    (total / divisor).backward()  # type: ignore[no-untyped-call]
    return {name: each.grad for name, each in brain.state().items()}


def test_gradients_are_those_of_the_sum_over_the_divisor_bit_by_bit() -> None:
    made, client = local(brain_of())
    for update in (1, 2):  # the first one finds out where modules wait
        outcome = made.train(share_of(0, 6, divisor=24, update=update), batch())
        push, wanted = client.pushes[-1], expected(batch(), 24)
        assert push.sent.keys() == wanted.keys()
        assert push.finished
        for name, each in wanted.items():
            found = push.sent[name]
            assert (found is None) == (each is None), name
            assert found is None or each is None or torch.equal(found, each), name
        assert [name for name, each in push.sent.items() if each is None] == [
            "join/image.missing",
            "join/audio.missing",
        ]
        assert (outcome.samples, outcome.sent_bytes, outcome.received_bytes) == (6, 20, 11)
        assert outcome.compute_seconds > 0
        assert outcome.correct.keys() == {"class"}
    assert outcome.loss == pytest.approx(6 * math.log(3), rel=0.5)


def test_each_module_waits_for_its_own_and_each_gradient_goes_at_once() -> None:
    made, client = local(brain_of())
    made.train(share_of(), batch())
    client.log.clear()
    made.train(share_of(update=2), batch())
    waits = [line.removeprefix("wait ") for line in client.log if line.startswith("wait")]
    assert waits == list(client.weights)
    assert client.log[len(waits) :] == [line for line in client.log if line.startswith("push")]
    pushed = [line.removeprefix("push ").partition("/")[0] for line in client.log if line.startswith("push")]
    assert pushed[0] == "join"
    assert set(pushed[-10:-2]) == {"left", "right"}
    assert set(pushed[-2:]) == {"join"}  # what no gradient comes to is told at the end


def test_weights_are_there_when_they_are_used() -> None:
    brain = brain_of()
    made, client = local(brain)
    before = made.train(share_of(), batch()).loss
    with torch.no_grad():
        for each in client.weights.values():
            each.zero_()
    assert made.train(share_of(update=2), batch()).loss == pytest.approx(6 * math.log(3))
    assert before != pytest.approx(6 * math.log(3))


def test_a_share_in_parts_sends_once_and_the_same_but_for_rounding() -> None:
    targets = {"left": 1.0}  # of which no dropout is a part
    whole, one = local(brain_of(targets=targets))
    parts, other = local(brain_of(targets=targets), at_once=4)
    first, second = whole.train(share_of(0, 6), batch()), parts.train(share_of(0, 6), batch())
    assert second.loss == pytest.approx(first.loss, rel=1e-6)
    assert second.correct == first.correct
    for name, each in one.pushes[0].sent.items():
        found = other.pushes[0].sent[name]
        assert (each is None) == (found is None)
        if each is not None and found is not None:
            torch.testing.assert_close(found, each, rtol=1e-5, atol=1e-7)


class Normed(AreaModule):
    contract = find_network("diagnostics", "001")

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.unused = nn.Linear(2, 2)
        self.inside = nn.Linear(3, 3)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # Uses a child's weights without calling it, as attention does.
        return {"y": nn.functional.linear(self.norm(inputs["x"]), self.inside.weight)}


def of_one(module: AreaModule) -> LearningBrain:
    text = (
        "brain: row\ninputs: {x: {datatype: FP32, shape: [-1, 3]}}\nregions: {a: {network: diagnostics/001}}\n"
        "pathways: [{from: x, to: a.x}]\noutputs: {y: a.y}\n"
    )
    torch.manual_seed(0)
    region = LearningRegion("a", TorchNetwork(module))
    region.learn()
    return LearningBrain(Routing(parse_manifest(text), {}), {"a": region})


def test_running_means_are_weighted_and_weights_of_a_module_that_is_not_called_are_waited_for() -> None:
    brain = of_one(Normed())
    made, client = local(brain)
    rows = Batch({"x": batch().inputs["x"]}, batch().labels)
    for update in (1, 2):
        made.train(share_of(0, 6, divisor=24, update=update), rows)
        sent = client.pushes[-1].sent
        mean = sent["a/norm.running_mean"]
        assert mean is not None
        torch.testing.assert_close(mean, rows.inputs["x"].mean(dim=0) * 0.1 * 6 / 24)
        assert sent["a/unused.weight"] is None
        assert sent["a/inside.weight"] is not None
    with torch.no_grad():
        client.weights["a/inside.weight"].zero_()
    assert made.train(share_of(0, 6, update=3), rows).loss == pytest.approx(6 * math.log(3))


class Tied(AreaModule):
    """`early` and `late` share a weight, and the one that is named last is called first; `direct` is looked at before
    it is called."""

    contract = find_network("diagnostics", "001")

    def __init__(self) -> None:
        super().__init__()
        self.late = nn.Linear(3, 3, bias=False)
        self.direct = nn.Linear(3, 3, bias=False)
        self.early = nn.Linear(3, 3, bias=False)
        self.early.weight = self.late.weight

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        begun = nn.functional.linear(self.early(inputs["x"]), self.direct.weight)
        return {"y": self.late(self.direct(begun))}


@pytest.mark.parametrize("name", ["a/late.weight", "a/direct.weight"])
def test_weights_that_are_used_before_their_module_is_called_are_waited_for(name: str) -> None:
    made, client = local(of_one(Tied()))
    rows = Batch({"x": batch().inputs["x"]}, batch().labels)
    made.train(share_of(0, 6), rows)
    with torch.no_grad():
        client.weights[name].mul_(2.0)
    found = made.train(share_of(0, 6, update=2), rows).loss
    assert found == pytest.approx(made.evaluate(share_of(0, 6), rows).loss, rel=1e-6)


def test_what_is_judged_is_not_pushed_and_changes_nothing() -> None:
    brain = of_one(Normed())
    made, client = local(brain)
    rows = Batch({"x": batch().inputs["x"]}, batch().labels)
    first = made.evaluate(share_of(0, 6), rows)
    again = made.evaluate(share_of(0, 6), rows)
    assert (first.loss, first.correct, first.samples) == (again.loss, again.correct, 6)
    assert client.pushes == []
    assert torch.equal(brain.state()["a/norm.running_mean"], torch.zeros(3))


def test_a_batch_that_lacks_what_is_learned_is_absent_from_the_sum() -> None:
    made, client = local(brain_of(targets={"left": 1.0}), targets={"left": 1.0})
    rows = Batch({"z": batch().inputs["z"]}, batch().labels)
    outcome = made.train(share_of(), rows)
    assert (outcome.loss, outcome.correct) == (0.0, {})
    assert set(client.pushes[0].sent.values()) == {None}


def test_a_share_that_was_taken_away_ends_in_the_middle() -> None:
    made, client = local(brain_of())
    made.train(share_of(), batch())

    class Stopping(dict[str, Tensor]):
        """The batch during whose forward pass the share is dropped."""

        def get(self, key: str, default: Any = None) -> Any:
            made.drop()
            return super().get(key, default)

    with pytest.raises(Cancelled):
        made.train(share_of(update=2), Batch(Stopping(batch().inputs), batch().labels))
    assert client.pulls[-1].aborted
    assert client.pushes[-1].aborted
    assert not client.pushes[-1].finished
    made.train(share_of(update=3), batch())
    assert client.pushes[-1].finished


def test_a_shard_that_is_away_stops_what_is_on_its_way() -> None:
    made, client = local(brain_of())

    def away(name: str) -> None:
        raise Unavailable("the shard is away")

    pulling = client.pulling

    def pulled(share: Any, into: Any) -> Any:
        pull = pulling(share, into)
        pull.wait = away  # type: ignore[method-assign]
        return pull

    client.pulling = pulled  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        made.train(share_of(), batch())
    assert client.pulls[-1].aborted
    assert client.pushes[-1].aborted


def test_a_share_before_the_worker_has_joined_and_joining_again() -> None:
    clients: list[FakeClient] = []
    brain = brain_of()

    def client(layout: parameter_pb.Layout) -> FakeClient:
        clients.append(FakeClient(brain.state()))
        return clients[-1]

    made = Local(brain, settings_of(), client)
    with pytest.raises(FailedPrecondition, match="before this worker had joined"):
        made.train(share_of(), batch())
    made.begin(LAYOUT)
    made.begin(LAYOUT)
    made.begin(parameter_pb.Layout(shards=2))
    assert [each.closed for each in clients] == [True, False]
    made.close()
    made.close()


def test_a_loss_that_is_not_finite_is_pushed_and_told() -> None:
    made, client = local(brain_of())
    rows = batch()
    rows.inputs["x"][0, 0] = math.nan
    assert math.isnan(made.train(share_of(), rows).loss)
    assert client.pushes[0].finished
