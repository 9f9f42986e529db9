"""The four convolutional networks of the paper (Lv et al. 2022, Table 6), one channel in.

A block is Conv2d, padded so that it keeps the size, then LeakyReLU, then MaxPool2d(2), which halves it (rounding
down). The feature vector is the last block, flattened.

    code  name       input    kernels      channels           last block   features  parameters with a head of 10
    001   LeNet3     28x28    5,3,3        8,16,32            32 x 3 x 3        288      8,906
    002   LeNet5     112x112  5,3,3,3,3    8,16,32,64,128     128 x 3 x 3     1,152    109,898
    003   MediumNet  112x112  3,3,3,3      8,16,32,64         64 x 7 x 7      3,136     55,754
    004   SparseNet  112x112  5,3,3,3,3    8,16,32,64,128     128 x 3 x 3     1,152     24,025

SparseNet first widens the picture (Conv 3 to 12 channels) and mixes it down again (Conv 1 to 1 channel); these two do
not pool, for seven halvings of 112 would leave nothing. Its five blocks are depthwise-separable: a depthwise
convolution (one kernel per input channel, the table's kernel size), then a pointwise convolution (1x1) to the table's
channels, both with a bias and with nothing between them; LeakyReLU and MaxPool2d(2) follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn

__all__ = ["ARCHITECTURES", "Architecture"]


class Architecture:
    """A row of the table: `body()` makes the layers from [N, 1, side, side] to [N, features]."""

    def __init__(self, side: int, kernels: Sequence[int], channels: Sequence[int], *, sparse: bool = False) -> None:
        self.side = side
        self.features = channels[-1] * (side >> len(channels)) ** 2
        self._kernels = kernels
        self._channels = channels
        self._sparse = sparse

    def body(self) -> nn.Sequential:
        convolution: Callable[[int, int, int], nn.Module] = _separable if self._sparse else _convolution
        before = [1, *self._channels[:-1]]
        rows = zip(before, self._channels, self._kernels, strict=True)
        blocks = [nn.Sequential(convolution(*row), nn.LeakyReLU(), nn.MaxPool2d(2)) for row in rows]
        stem = [nn.Sequential(_convolution(1, 12, 3), nn.LeakyReLU(), _convolution(12, 1, 1), nn.LeakyReLU())]
        return nn.Sequential(*(stem if self._sparse else []), *blocks, nn.Flatten())


def _convolution(before: int, after: int, kernel: int) -> nn.Module:
    return nn.Conv2d(before, after, kernel, padding=kernel // 2)


def _separable(before: int, after: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, before, kernel, padding=kernel // 2, groups=before), nn.Conv2d(before, after, kernel_size=1)
    )


ARCHITECTURES: Mapping[str, Architecture] = {
    "001": Architecture(28, (5, 3, 3), (8, 16, 32)),
    "002": Architecture(112, (5, 3, 3, 3, 3), (8, 16, 32, 64, 128)),
    "003": Architecture(112, (3, 3, 3, 3), (8, 16, 32, 64)),
    "004": Architecture(112, (5, 3, 3, 3, 3), (8, 16, 32, 64, 128), sparse=True),
}
