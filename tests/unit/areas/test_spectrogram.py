from __future__ import annotations

import numpy as np
import pytest
import torch

from encephalon.areas.hearing import Hearing
from encephalon.areas.spectrogram import DEVIATION, FLOOR, HOP, MEAN, POINTS, LogSpectrogram


def tone(hertz: float, samples: int = 8_000, level: int = 20_000) -> torch.Tensor:
    wave = level * np.sin(2 * np.pi * hertz * np.arange(samples) / 8_000)
    return torch.from_numpy(wave.astype(np.int16))[None]


def test_equals_the_definition_of_the_short_time_fourier_transform() -> None:
    wave = np.random.default_rng(0).integers(-9_000, 9_000, 8_000).astype(np.int16)
    found = LogSpectrogram()(torch.from_numpy(wave)[None])[0].numpy()
    levelled = np.pad(wave / np.abs(wave.astype(float)).max(), POINTS // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(POINTS) / POINTS)
    frames = np.stack([levelled[start : start + POINTS] * window for start in range(0, 112 * HOP, HOP)])
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    assert found.shape == (112, 112)
    np.testing.assert_allclose(found, (np.log10(power.T + FLOOR) - MEAN) / DEVIATION, atol=1e-3)


@pytest.mark.parametrize("hertz", [300, 1_000, 3_000])
def test_a_tone_is_a_bright_row(hertz: int) -> None:
    picture = LogSpectrogram()(tone(hertz))[0]
    assert abs(int(picture.mean(dim=1).argmax()) - hertz * POINTS / 8_000) <= 1


@pytest.mark.parametrize("samples", [0, 1, 71, 4_000, 8_000, 8_001, 40_000])
def test_any_length_gives_one_second(samples: int) -> None:
    audio = tone(500, samples)
    picture = LogSpectrogram()(audio)
    assert picture.shape == (1, 112, 112)
    assert bool(torch.isfinite(picture).all())


def test_a_short_sound_is_followed_by_silence_and_a_long_one_is_cut() -> None:
    spectrogram = LogSpectrogram()
    short, long = tone(500, 3_000), tone(500, 20_000)
    padded = torch.cat([short, torch.zeros(1, 5_000, dtype=torch.int16)], dim=1)
    assert torch.equal(spectrogram(short), spectrogram(padded))
    assert torch.equal(spectrogram(long), spectrogram(long[:, :8_000]))


def test_loudness_does_not_matter_and_the_loudest_sample_does_not_overflow() -> None:
    spectrogram = LogSpectrogram()
    quiet, loud = tone(500, level=300), tone(500, level=30_000)
    assert float((spectrogram(quiet) - spectrogram(loud)).abs().median()) < 0.1
    assert bool(torch.isfinite(spectrogram(torch.full((1, 8_000), -32_768, dtype=torch.int16))).all())


def test_rows_do_not_disturb_each_other() -> None:
    batch = torch.cat([tone(300), tone(2_000, level=100)])
    spectrogram = LogSpectrogram()
    torch.testing.assert_close(spectrogram(batch)[1:], spectrogram(batch[1:]))


def test_it_is_frozen_and_not_part_of_the_weights() -> None:
    assert not list(LogSpectrogram().parameters())
    assert not any("spectrogram" in name for name in Hearing("002").state_dict())


def test_lenet3_sees_means_of_four_by_four_cells() -> None:
    small, full = Hearing("001").prepare(tone(700)), Hearing("002").prepare(tone(700))
    torch.testing.assert_close(small, full.reshape(1, 28, 4, 28, 4).mean(dim=(2, 4)))
