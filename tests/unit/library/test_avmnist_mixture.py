from __future__ import annotations

import numpy as np
import pytest

from encephalon.library.avmnist import mixture, pictures


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("snr_db", [-20, 0, 6.5, 20])
def test_the_ratio_of_powers_is_the_stated_one(snr_db: float) -> None:
    speech, background = noise(3_000, 1), noise(8_000, 2)
    mixed = mixture.mix(speech, background, snr_db, np.random.default_rng(0)).astype(float) / 32_767
    # Least squares tells the two apart again, place by place; the right place explains all but the rounding.
    best = max(range(5_001), key=lambda at: float(mixed[at : at + 3_000] @ speech))
    placed = np.zeros(8_000)
    placed[best : best + 3_000] = speech
    (a, b), residual, *_ = np.linalg.lstsq(np.stack([placed, background.astype(float)], axis=1), mixed, rcond=None)
    assert float(residual[0]) < 8_000 / 32_767**2
    found = 10 * np.log10(np.mean((a * speech) ** 2) / np.mean((b * background) ** 2))
    assert found == pytest.approx(snr_db, abs=0.05)


def test_the_level_of_the_speech_stays_unless_the_sum_would_clip() -> None:
    quiet = mixture.mix(noise(8_000, 1), noise(8_000, 2), 60, np.random.default_rng(0))
    assert np.abs(quiet / 32_767 - noise(8_000, 1)).max() < 0.001
    loud = mixture.mix(10 * noise(8_000, 1), noise(8_000, 2), 0, np.random.default_rng(0))
    assert np.abs(loud.astype(int)).max() == 32_767


def test_speech_that_is_too_long_keeps_its_middle() -> None:
    speech = np.zeros(12_000, np.float32)
    speech[6_000] = 0.5
    mixed = mixture.mix(speech, np.full(8_000, 1e-3, np.float32), 60, np.random.default_rng(0))
    assert int(np.abs(mixed.astype(int)).argmax()) == 4_000


def test_silence_makes_no_noise() -> None:
    silent = np.zeros(8_000, np.float32)
    assert not mixture.mix(silent[:100], silent, 0, np.random.default_rng(0)).any()
    assert len(mixture.trimmed(silent)) == 8_000


def test_padding_is_trimmed_and_short_clips_repeat() -> None:
    clip = np.concatenate([np.zeros(500), noise(700), np.zeros(900)]).astype(np.float32)
    assert 690 <= len(mixture.trimmed(clip)) <= 700
    part = mixture.excerpt(noise(700), 2_000, np.random.default_rng(0))
    np.testing.assert_array_equal(part[:1_300], part[700:])


def test_an_excerpt_prefers_what_can_be_heard() -> None:
    clip = np.concatenate([np.full(20_000, 1e-6), np.full(20_000, 0.5)]).astype(np.float32)
    powers = [np.square(mixture.excerpt(clip, 8_000, np.random.default_rng(seed))).mean() for seed in range(200)]
    # One draw would miss the loud half in about a third of the cases, four draws in about one of sixty.
    assert np.mean(np.array(powers) < 0.01) < 0.05


def test_principal_components_are_fitted_exactly() -> None:
    random = np.random.default_rng(0)
    flat = random.integers(0, 256, (50, 4, 5), np.uint8)
    found = pictures.fit(flat, 3)
    centred = flat.reshape(50, -1) - flat.reshape(50, -1).mean(axis=0)
    _, values, rows = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs((found.components * rows[:3]).sum(axis=1)), 1, rtol=1e-6)
    assert found.kept_energy == pytest.approx(float((values[:3] ** 2).sum() / (values**2).sum()))
    everything = pictures.fit(flat, 20)
    assert everything.kept_energy == pytest.approx(1)
    np.testing.assert_array_equal(everything.reconstruct(flat), flat)
