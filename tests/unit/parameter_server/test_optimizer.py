from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import EncephalonError, FailedPrecondition, InvalidInput, Unsupported
from encephalon.learning import optimizers
from encephalon.learning.layout import count, planned
from encephalon.parameter_server.blocks import BLOCK
from encephalon.parameter_server.gradient import Gradient
from encephalon.parameter_server.optimizer import ShardOptimizer
from encephalon.parameter_server.places import Places
from tests.unit.parameter_server.shards import BUFFER, gradients, optimizer, tensor

MODEL = (
    tensor("w", 257, 300),
    tensor("one", 1),
    tensor("odd", 37),
    tensor("mean", 3, kind=BUFFER),
    tensor("m", 31, 5),
    tensor("v", 129),
)
LEARNED = [each for each in MODEL if each.kind != BUFFER]


class Cluster:
    """A model over shards, stepped by ShardOptimizers, and beside it tensor by tensor by torch's own."""

    def __init__(self, wanted: pb.Optimizer, shards: int = 2, tensors: Sequence[pb.Tensor] = MODEL, **arguments: Any):
        layout = planned(tensors, shards, whole=optimizers.whole(wanted))
        self.places = [Places(layout, shard) for shard in range(shards)]
        self.flats = [torch.zeros(places.elements) for places in self.places]
        self.tensors = [each for each in tensors if each.kind != BUFFER]
        self.plain = {
            name: torch.nn.Parameter(value.clone())
            for name, value in gradients(99, self.tensors).items()
            if value is not None
        }
        for places, flat in zip(self.places, self.flats, strict=True):
            for number in places.numbers:
                if places.learned(number):
                    places.view(flat, number).copy_(self.cut(number, self.plain))
        self.optimizers = [ShardOptimizer(wanted, *pair) for pair in zip(self.places, self.flats, strict=True)]
        kind = getattr(torch.optim, wanted.name)
        self.reference = kind(list(self.plain.values()), **arguments)

    def cut(self, number: int, values: Mapping[str, torch.Tensor | None]) -> torch.Tensor | None:
        cut, name = self.places[0].layout.slices[number], self.places[0].tensor(number).name
        value = values.get(name)
        return None if value is None else value.detach().reshape(-1)[cut.start : cut.stop].clone()

    def step(self, values: Mapping[str, torch.Tensor | None]) -> None:
        for places, each in zip(self.places, self.optimizers, strict=True):
            cuts = {number: self.cut(number, values) for number in places.numbers}
            each.step({number: None if cut is None else Gradient((cut,)) for number, cut in cuts.items()})
        for name, parameter in self.plain.items():
            value = values[name]
            parameter.grad = None if value is None else value.clone()
        self.reference.step()

    def check(self) -> None:
        for places, flat in zip(self.places, self.flats, strict=True):
            for number in places.numbers:
                if places.learned(number):
                    wanted = self.cut(number, self.plain)
                    assert wanted is not None
                    assert torch.equal(places.view(flat, number), wanted), places.tensor(number).name


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        ("AdamW", {"lr": 0.01}),
        ("Adam", {"amsgrad": True, "weight_decay": 0.01, "betas": [0.8, 0.99]}),
        ("RMSprop", {"momentum": 0.9, "centered": True}),
        ("Adagrad", {"initial_accumulator_value": 0.1}),
        ("NAdam", {}),
        ("RAdam", {}),
        ("Adamax", {}),
        ("Adadelta", {}),
        ("ASGD", {}),
        ("Rprop", {}),
    ],
)
def test_slices_get_the_bits_of_whole_tensors(name: str, arguments: dict[str, Any]) -> None:
    cluster = Cluster(optimizer(name, **arguments), foreach=False, **arguments)
    assert any(cluster.places[0].size(number) > 1 for number in cluster.places[0].numbers)
    for seed in range(6):
        cluster.step(gradients(seed, LEARNED))
    cluster.check()


@pytest.mark.parametrize("name", ["Muon", "Adafactor"])
def test_optimisers_of_matrices_get_whole_tensors(name: str) -> None:
    matrices = [each for each in LEARNED if len(each.shape) == 2]
    cluster = Cluster(optimizer(name, lr=0.01), tensors=matrices, lr=0.01)
    for seed in range(3):
        cluster.step(gradients(seed, matrices))
    cluster.check()
    wanted = optimizer(name)
    with pytest.raises(FailedPrecondition, match="plan it with whole"):
        ShardOptimizer(wanted, Places(planned(matrices, 2), 0), torch.zeros(10**6))


def test_a_parameter_without_gradient_is_left_out_with_its_slots() -> None:
    cluster = Cluster(optimizer("AdamW", lr=0.01), shards=1, foreach=False, lr=0.01)
    for seed, absent in enumerate([(), ("odd",), ("odd", "w"), tuple(each.name for each in LEARNED), ("v",), ()]):
        values = gradients(seed, LEARNED)
        cluster.step({name: None if name in absent else value for name, value in values.items()})
    cluster.check()
    steps = {
        cluster.places[0].tensor(number).name: cluster.optimizers[0].slots(number)[1]["step"][1]
        for number in cluster.places[0].numbers
        if cluster.places[0].learned(number)
    }
    assert steps == {"w": 4.0, "one": 5.0, "odd": 3.0, "m": 5.0, "v": 4.0}


def test_large_slices_are_cut_and_small_ones_laid_together() -> None:
    each = Cluster(optimizer("SGD"), shards=1, foreach=False).optimizers[0]
    sizes = [(block.numbers, block.parameter.numel()) for block in each._blocks]
    assert [size for _, size in sizes][:2] == [BLOCK, 257 * 300 - BLOCK]
    assert len(sizes) == 4, "before and behind the buffer"


@pytest.mark.parametrize(
    ("schedule", "arguments"),
    [
        ("CosineAnnealingLR", {"T_max": 5}),
        ("MultiStepLR", {"milestones": [2, 4]}),
        ("OneCycleLR", {"max_lr": 1.0, "total_steps": 10}),
        ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 2}),
        ("CosineAnnealingWarmRestarts", {"T_0": 3}),
    ],
)
def test_the_rate_follows_the_schedule(schedule: str, arguments: dict[str, Any]) -> None:
    wanted = optimizer("SGD", schedule, arguments, lr=0.5, momentum=0.9)
    cluster = Cluster(wanted, foreach=False, lr=0.5, momentum=0.9)
    reference = getattr(torch.optim.lr_scheduler, schedule)(cluster.reference, **arguments)
    for seed in range(6):
        assert cluster.optimizers[0].learning_rate == cluster.reference.param_groups[0]["lr"]
        cluster.step(gradients(seed, LEARNED))
        reference.step()
    cluster.check()


def test_schedules_follow_one_another() -> None:
    parts = [
        {"name": "LinearLR", "arguments": {"start_factor": 0.5, "total_iters": 2}},
        {"name": "CosineAnnealingLR", "arguments": {"T_max": 4}},
    ]
    each = Cluster(optimizer("SGD", "SequentialLR", {"schedulers": parts, "milestones": [2]}, lr=1.0)).optimizers[0]
    rates = []
    for _ in range(4):
        rates.append(each.learning_rate)
        each.step(dict.fromkeys(range(20)))
    assert rates[:3] == [0.5, 0.75, 1.0]
    assert rates[3] < 1.0


def test_a_schedule_that_is_over_keeps_its_last_rate() -> None:
    each = Cluster(optimizer("SGD", "OneCycleLR", {"max_lr": 1.0, "total_steps": 3}, lr=0.1)).optimizers[0]
    for _ in range(3):
        each.step(dict.fromkeys(range(20)))
    last = each.learning_rate
    each.step(dict.fromkeys(range(20)))
    assert each.learning_rate == last


def test_every_optimiser_and_schedule_of_torch_is_known_or_refused_with_a_reason() -> None:
    for module, base, known in (
        (torch.optim, torch.optim.Optimizer, optimizers.ELEMENTWISE | optimizers.WHOLE | set(optimizers.REFUSED)),
        (
            torch.optim.lr_scheduler,
            torch.optim.lr_scheduler.LRScheduler,
            optimizers.SCHEDULES | set(optimizers.REFUSED_SCHEDULES),
        ),
    ):
        kinds = {name: kind for name, kind in vars(module).items() if isinstance(kind, type) and issubclass(kind, base)}
        assert {name for name, kind in kinds.items() if kind is not base and not name.startswith("_")} - {
            "Optimizer",
            "LRScheduler",
        } == known


@pytest.mark.parametrize(
    ("wanted", "kind", "match"),
    [
        (optimizer("LBFGS"), Unsupported, "again and again within one step"),
        (optimizer("SparseAdam"), Unsupported, "dense"),
        (optimizer("SGD", "ReduceLROnPlateau"), Unsupported, "validation loss"),
        (optimizer("SGD", "LambdaLR"), Unsupported, "function"),
        (optimizer("adamw"), InvalidInput, "did you mean AdamW"),
        (optimizer("AdmaW"), InvalidInput, "did you mean AdamW"),
        (optimizer("Zzz"), InvalidInput, "known are ASGD, Adadelta"),
        (optimizer("SGD", "CosineAnealingLR"), InvalidInput, "did you mean CosineAnnealingLR"),
        (optimizer("SGD", lr=-1), InvalidInput, "Invalid learning rate: -1"),
        (optimizer("SGD", speed=1), InvalidInput, "unexpected keyword argument 'speed'"),
        (optimizer("SGD", params=[]), InvalidInput, "multiple values for argument 'params'"),
        (optimizer("SGD", "StepLR"), InvalidInput, "missing 1 required positional argument: 'step_size'"),
        (optimizer("SGD", "SequentialLR", {"schedulers": 3}), InvalidInput, 'needs "schedulers"'),
        (pb.Optimizer(name="SGD", arguments="[1]"), InvalidInput, "expected a JSON object"),
        (pb.Optimizer(name="SGD", arguments="{"), InvalidInput, "no JSON"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(
    wanted: pb.Optimizer, kind: type[EncephalonError], match: str
) -> None:
    places = Places(planned(LEARNED, 1), 0)
    with pytest.raises(kind, match=match):
        ShardOptimizer(wanted, places, torch.zeros(sum(count(each) for each in LEARNED)))
