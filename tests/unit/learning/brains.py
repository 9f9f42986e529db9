"""Brains that learn, without a library."""

from __future__ import annotations

from typing import Any

import torch

from encephalon.areas.association import LateFusion
from encephalon.areas.weights import dumps
from encephalon.learning.brain import LearningBrain, chosen, learning_region
from encephalon.learning.routing import Routing
from encephalon.library.brains import parse_manifest
from encephalon.training.runs import RunSettings

__all__ = ["FORK", "brain_of", "settings_of"]

FORK = """
brain: fork
inputs:
  x: {datatype: FP32, shape: [-1, 3], optional: true}
  z: {datatype: FP32, shape: [-1, 3], optional: true}
regions:
  left: {network: diagnostics/005, arguments: {inputs: 3, outputs: 4, width: 5, seed: 1}}
  right: {network: diagnostics/005, arguments: {inputs: 3, outputs: 4, width: 5, seed: 2}}
  join: {network: association/001, arguments: {image_features: 4, audio_features: 4, width: 6, classes: 3}}
pathways:
  - {from: x, to: left.x}
  - {from: z, to: right.x}
  - {from: left.y, to: join.image_features, optional: true}
  - {from: right.y, to: join.audio_features, optional: true}
outputs: {class: join.probabilities, left: left.y}
"""
"""Two senses and what concludes from them."""


def joined() -> bytes:
    """Weights for the region `join`; those that ship with the package are of other sizes."""
    arguments = {"image_features": 4, "audio_features": 4, "width": 6, "classes": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return dumps(LateFusion(**arguments), "association/001", arguments, "1")


def settings_of(**more: Any) -> RunSettings:
    return RunSettings.checked(**{"run": "r", "brain": "fork@1", "data": "points@1", **more})


def brain_of(text: str = FORK, weights: dict[str, bytes] | None = None, **more: Any) -> LearningBrain:
    """As `load_brain` makes it. `weights` by region."""
    settings = settings_of(**more)
    given = {"join": joined(), **(weights or {})}
    brain = parse_manifest(text)
    routing = Routing(brain, settings.targets)
    regions = {
        name: learning_region(
            brain.region(name), given.get(name), trainable=False, bfloat16=settings.precision == "bf16"
        )
        for name in routing.regions
    }
    for name in chosen(routing, regions, settings):
        regions[name].learn(from_scratch=settings.from_scratch, seed=settings.seed)
    return LearningBrain(routing, regions)
