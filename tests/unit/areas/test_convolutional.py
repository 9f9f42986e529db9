"""The paper's networks against numbers worked out by hand from its Table 6."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from encephalon.areas.hearing import Hearing
from encephalon.areas.sense import Sense
from encephalon.areas.vision import Vision

# A convolution has out * (in * k * k + 1) parameters, a head of ten classes 10 * (features + 1).
LENET3 = 8 * 26 + 16 * (8 * 9 + 1) + 32 * (16 * 9 + 1)
LENET5 = LENET3 + 64 * (32 * 9 + 1) + 128 * (64 * 9 + 1)
MEDIUM = 8 * 10 + 16 * (8 * 9 + 1) + 32 * (16 * 9 + 1) + 64 * (32 * 9 + 1)
STEM = 12 * 10 + 1 * 13
# Depthwise: one k x k kernel and a bias per input channel; pointwise: 1 x 1 to the output channels.
DEPTHWISE = 1 * 26 + 8 * 10 + 16 * 10 + 32 * 10 + 64 * 10
POINTWISE = 8 * 2 + 16 * 9 + 32 * 17 + 64 * 33 + 128 * 65
SPARSE = STEM + DEPTHWISE + POINTWISE

TABLE = [
    ("001", 28, 32 * 3 * 3, LENET3, 6_016, 8_906),
    ("002", 112, 128 * 3 * 3, LENET5, 98_368, 109_898),
    ("003", 112, 64 * 7 * 7, MEDIUM, 24_384, 55_754),
    ("004", 112, 128 * 3 * 3, SPARSE, 12_495, 24_025),
]


@pytest.mark.parametrize("sense", [Vision, Hearing])
@pytest.mark.parametrize(("code", "side", "features", "body", "body_total", "total"), TABLE)
def test_parameters_and_shapes(
    sense: type[Sense], code: str, side: int, features: int, body: int, body_total: int, total: int
) -> None:
    network = sense(code)
    assert body == body_total
    assert sum(p.numel() for p in network.body.parameters()) == body
    assert sum(p.numel() for p in network.parameters()) == total == body + 10 * (features + 1)
    for rows in (0, 1, 3):
        seen = network.see(torch.zeros(rows, side, side))
        assert seen.features.shape == (rows, features)
        assert seen.logits.shape == (rows, 10)


@pytest.mark.parametrize(
    ("code", "sizes"), [("001", [14, 7, 3]), ("002", [56, 28, 14, 7, 3]), ("003", [56, 28, 14, 7])]
)
def test_each_block_keeps_the_size_then_halves_it(code: str, sizes: list[int]) -> None:
    network = Vision(code)
    pictures = torch.zeros(1, 1, network.side, network.side)
    for block, size in zip(network.body, sizes, strict=False):
        assert isinstance(block, nn.Sequential)
        assert [type(layer) for layer in block] == [nn.Conv2d, nn.LeakyReLU, nn.MaxPool2d]
        before = pictures.shape[2:]
        assert block[0](pictures).shape[2:] == before
        pictures = block(pictures)
        assert pictures.shape[2:] == (size, size)


def test_sparse_net_is_a_stem_and_five_depthwise_separable_blocks() -> None:
    stem, *blocks, flatten = Vision("004").body
    assert isinstance(flatten, nn.Flatten)
    convolutions = [layer for layer in stem.modules() if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in convolutions] == [(1, 12, (3, 3)), (12, 1, (1, 1))]
    assert not any(isinstance(layer, nn.MaxPool2d) for layer in stem.modules())
    pairs = [[layer for layer in block.modules() if isinstance(layer, nn.Conv2d)] for block in blocks]
    assert [depthwise.kernel_size[0] for depthwise, _ in pairs] == [5, 3, 3, 3, 3]
    assert [pointwise.out_channels for _, pointwise in pairs] == [8, 16, 32, 64, 128]
    assert all(depthwise.groups == depthwise.in_channels == depthwise.out_channels for depthwise, _ in pairs)
    assert all(pointwise.kernel_size == (1, 1) and pointwise.groups == 1 for _, pointwise in pairs)


def test_the_feature_vector_is_the_flattened_last_block() -> None:
    network = Vision("002").eval()
    pictures = torch.randn(2, 112, 112)
    last = network.body[:-1](pictures.unsqueeze(1))
    assert last.shape == (2, 128, 3, 3)
    assert torch.equal(network.see(pictures).features, last.reshape(2, -1))
