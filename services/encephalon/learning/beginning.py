"""Weights to begin with, the same on every machine that draws them with the same seed."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from encephalon.core.errors import InvalidInput

__all__ = ["begin_again"]


def begin_again(module: nn.Module, region: str, seed: int) -> None:
    """Draws every parameter anew, by `seed` and the region's name. InvalidInput for a layer that does not tell how (it
    has no `reset_parameters`, which torch's own layers have)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_drawn(seed, region))
        for name, layer in module.named_modules():
            _begin(layer, name, region)


def _begin(layer: nn.Module, name: str, region: str) -> None:
    reset = getattr(layer, "reset_parameters", None)
    if callable(reset):
        reset()
    elif any(True for _ in layer.parameters(recurse=False)):
        raise InvalidInput(
            f"region '{region}' cannot begin from scratch: its layer '{name}' ({type(layer).__name__}) has no "
            "reset_parameters; let it begin with the weights it has",
            region=region,
        )
    if isinstance(layer, nn.Conv2d):
        # He et al. 2015, as `areas.pretrain` begins: with torch's own default the signal fades within five blocks.
        nn.init.kaiming_normal_(layer.weight, a=0.01, nonlinearity="leaky_relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _drawn(seed: int, region: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{region}".encode()).digest()[:8], "big") >> 1
