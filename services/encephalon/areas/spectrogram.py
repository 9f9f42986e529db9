"""The picture of a sound that the hearing networks look at; frozen, a part of the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["WINDOW", "LogSpectrogram"]

WINDOW = 8_000
"""Samples that a network hears: one second at 8 kHz."""

# 222 points (27.75 ms, a usual window for speech) give 112 frequencies, and a hop of 72 (9 ms) gives 112 frames of
# one second.
POINTS = 222
HOP = 72
SIDE = 112

FLOOR = 1e-5
"""Power below which silence is silence, where 1 is the power of a full-scale tone's peak after levelling."""

# So that the pictures of AV-MNIST's training sounds have about mean 0 and deviation 1.
MEAN, DEVIATION = -1.5, 1.7


class LogSpectrogram(nn.Module):
    """int16 [N, samples] to float32 [N, 112, 112], rows low frequencies first.

    A longer sound is cut after one second, a shorter one is followed by silence. Each sound is scaled to a peak of 1
    first, so that its loudness does not matter.
    """

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Not in the weights: it is known.
        self.register_buffer("window", torch.hann_window(POINTS), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        samples = nn.functional.pad(audio[:, :WINDOW].to(torch.float32), (0, max(WINDOW - audio.shape[1], 0)))
        levelled = samples / samples.abs().amax(dim=1, keepdim=True).clamp(min=1.0)
        spectrum = torch.stft(
            levelled, POINTS, HOP, window=self.window, center=True, pad_mode="constant", return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return ((power + FLOOR).log10() - MEAN) / DEVIATION
