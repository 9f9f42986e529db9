"""A brain cut into regions and batches cut into micro-batches learn what the brain in one piece learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from encephalon.learning.brain import LearningBrain
from encephalon.learning.samples import Batch
from encephalon.library.builtins import example
from tests.unit.learning.brains import brain_of, settings_of
from tests.unit.training.pipeline.staged import Staged, staged, steady, unsplit
from tests.unit.training.worker.fakes import share_of

DIAMOND = """
brain: diamond
inputs:
  x: {datatype: FP32, shape: [-1, 3]}
regions:
  stem: {network: diagnostics/005, arguments: {inputs: 3, outputs: 6, width: 8, seed: 4}}
  left: {network: diagnostics/005, arguments: {inputs: 6, outputs: 4, width: 5, seed: 1}}
  right: {network: diagnostics/005, arguments: {inputs: 6, outputs: 4, width: 5, seed: 2}}
  join: {network: association/001, arguments: {image_features: 4, audio_features: 4, width: 6, classes: 3}}
pathways:
  - {from: x, to: stem.x}
  - {from: stem.y, to: left.x}
  - {from: stem.y, to: right.x}
  - {from: left.y, to: join.image_features, optional: true}
  - {from: right.y, to: join.audio_features, optional: true}
outputs: {class: join.probabilities, early: left.probabilities}
"""
ROWS, RATE = 16, 0.5


def points(step: int) -> Batch:
    drawn = torch.Generator().manual_seed(step)
    return Batch({"x": torch.randn(ROWS, 3, generator=drawn)}, torch.randint(3, (ROWS,), generator=drawn))


def digits(step: int) -> Batch:
    """Pictures and sounds of noise; some rows lack one of them."""
    drawn = np.random.default_rng(step)
    seen, heard = torch.ones(8, dtype=torch.bool), torch.ones(8, dtype=torch.bool)
    seen[:2], heard[3] = False, False
    inputs = {
        "image": torch.from_numpy(drawn.integers(0, 256, (8, 28, 28), dtype=np.uint8)),
        "audio": torch.from_numpy(drawn.integers(-3000, 3000, (8, 2000), dtype=np.int16)),
        "image.present": seen,
        "audio.present": heard,
    }
    return Batch(inputs, torch.from_numpy(drawn.integers(0, 10, 8)))


def far(found: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> float:
    """The relative distance of all tensors as one vector. One of them alone, such as a bias that began at zero, may be
    a sum in which float32 cancels; each is held to ten times as much."""
    assert found.keys() == expected.keys()
    assert [name for name in found if (found[name] is None) != (expected[name] is None)] == []
    pairs = [(each.double(), other.double()) for each, other in zip(*_sorted(found, expected), strict=True)]
    for one, two in pairs:
        assert float((one - two).norm()) <= 1e-5 * float(two.norm())
    apart = sum(float((one - two).square().sum()) for one, two in pairs)
    return math.sqrt(apart / sum(float(two.square().sum()) for _, two in pairs))


def _sorted(*states: dict[str, Tensor | None]) -> list[list[Tensor]]:
    return [[state[name].detach() for name in sorted(state) if state[name] is not None] for state in states]  # type: ignore[union-attr]


def learns_alike(run: Staged, whole: LearningBrain, batches: list[Batch], settings: object) -> None:
    """Step by step with the same weights; at the end the weights, which each has changed for itself."""
    for step, batch in enumerate(batches, start=1):
        outcome = run.pipeline.train(share_of(0, len(batch), update=step), batch)
        loss, gradients = unsplit(whole, settings, batch)  # type: ignore[arg-type]
        assert outcome.samples == len(batch)
        assert outcome.loss == pytest.approx(loss, rel=1e-6)
        assert far(run.sent(), gradients) < 1e-6
        run.descend(RATE)
        with torch.no_grad():
            for each in whole.learned():
                if each.tensor.grad is not None:
                    each.tensor.sub_(each.tensor.grad, alpha=RATE)
    state: dict[str, Tensor | None] = {**whole.state()}
    assert far({**run.weights}, state) < 1e-6


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("micro_batches", [1, 2, 4, 8])
def test_a_fork_and_a_join_learn_as_the_brain_in_one_piece(micro_batches: int, recompute: bool) -> None:
    more = {"targets": {"class": 1.0, "early": 0.5}, "micro_batch": ROWS // micro_batches, "recompute": recompute}
    settings = settings_of(brain="diamond@1", pipeline=True, **more)
    whole, apart = (steady(brain_of(DIAMOND, targets=more["targets"])) for _ in range(2))
    with staged(apart, settings) as run:
        learns_alike(run, whole, [points(step) for step in range(4)], settings)
        passes = [event for event in run.events if event[:3] == ("end", "join", "backward")]
    assert len(passes) == 4 * micro_batches


def test_a_last_micro_batch_may_be_smaller() -> None:
    settings = settings_of(pipeline=True, micro_batch=5)
    whole, apart = (steady(brain_of(DIAMOND)) for _ in range(2))
    with staged(apart, settings) as run:
        learns_alike(run, whole, [points(1)], settings)


def test_a_frozen_region_in_the_middle_passes_gradients_on() -> None:
    settings = settings_of(pipeline=True, micro_batch=4)
    whole, apart = (steady(brain_of(DIAMOND, freeze=("left", "right"))) for _ in range(2))
    with staged(apart, settings) as run:
        learns_alike(run, whole, [points(step) for step in range(2)], settings)
        assert set(run.clients) == {"stem", "join"}
        assert any(name.startswith("stem/") and each is not None for name, each in run.sent().items())


def test_what_lies_before_everything_that_learns_only_goes_forward() -> None:
    settings = settings_of(pipeline=True, micro_batch=4)
    whole, apart = (steady(brain_of(DIAMOND, learn=("join",))) for _ in range(2))
    with staged(apart, settings) as run:
        learns_alike(run, whole, [points(1)], settings)
        backward = {name for _, name, direction, _ in run.events if direction == "backward"}
    assert backward == {"join"}


def test_digits_with_missing_senses() -> None:
    text = example("digits").read_text()
    settings = settings_of(pipeline=True, micro_batch=2, recompute=True)
    whole, apart = (steady(brain_of(text)) for _ in range(2))
    with staged(apart, settings) as run:
        learns_alike(run, whole, [digits(step) for step in range(2)], settings)


def test_evaluation_judges_and_sends_nothing() -> None:
    settings = settings_of(pipeline=True, micro_batch=4)
    whole, apart = (steady(brain_of(DIAMOND)) for _ in range(2))
    batch = points(1)
    with staged(apart, settings) as run:
        outcome = run.pipeline.evaluate(share_of(0, ROWS, kind=3, divisor=0), batch)
        assert not any(client.pushes for client in run.clients.values())
    whole.eval()
    loss, _ = unsplit(whole, settings, batch)
    assert outcome.loss == pytest.approx(loss, rel=1e-6)
    assert 0 <= outcome.correct["class"] <= ROWS
