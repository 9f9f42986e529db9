from __future__ import annotations

import pytest
import torch

from encephalon.areas.vision import DEVIATION, MEAN, Vision
from encephalon.core.errors import InvalidInput


@pytest.mark.parametrize("code", ["001", "002"])
@pytest.mark.parametrize("size", [(28, 28), (112, 112), (1, 1), (7, 300), (480, 640)])
def test_any_size_is_resized(code: str, size: tuple[int, int]) -> None:
    network = Vision(code)
    grey = torch.full((2, *size), 100, dtype=torch.uint8)
    prepared = network.prepare(grey)
    assert prepared.shape == (2, network.side, network.side)
    torch.testing.assert_close(prepared, torch.full_like(prepared, (100 / 255 - MEAN) / DEVIATION))


def test_its_own_size_is_not_touched() -> None:
    picture = torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8)
    torch.testing.assert_close(Vision("001").prepare(picture), (picture / 255 - MEAN) / DEVIATION)


def test_enlarging_is_bilinear() -> None:
    picture = torch.zeros(1, 28, 28, dtype=torch.uint8)
    picture[0, :, 14:] = 255
    row = (Vision("002").prepare(picture) * DEVIATION + MEAN)[0, 0]
    # Four pixels for each; the edge between the 14th and the 15th becomes a ramp.
    torch.testing.assert_close(row[53:59], torch.tensor([0, 0.125, 0.375, 0.625, 0.875, 1]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(1, 0, 28), (1, 28, 0)])
def test_a_picture_without_pixels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="'image' came with shape"):
        Vision("002").prepare(torch.zeros(shape, dtype=torch.uint8))
