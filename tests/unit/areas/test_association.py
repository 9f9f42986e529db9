from __future__ import annotations

import numpy as np
import pytest
import torch

from encephalon.areas.association import LateFusion
from encephalon.areas.network import Arrays
from encephalon.areas.torch_network import TorchNetwork
from encephalon.core.errors import InvalidInput


@pytest.fixture
def network() -> TorchNetwork:
    torch.manual_seed(1)
    module = LateFusion(image_features=6, audio_features=9, width=4)
    torch.nn.init.normal_(module.image.missing)
    torch.nn.init.normal_(module.audio.missing)
    return TorchNetwork(module)


def features(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns), np.float32)


def answer(network: TorchNetwork, **inputs: np.ndarray) -> np.ndarray:
    named: Arrays = {name.replace("__", "."): value for name, value in inputs.items()}
    return network(named)["probabilities"]


def test_contract_names_the_sizes(network: TorchNetwork) -> None:
    assert [(spec.name, spec.shape, spec.optional) for spec in network.contract.inputs] == [
        ("image_features", (-1, 6), True),
        ("audio_features", (-1, 9), True),
    ]
    assert network.contract.outputs[0].shape == (-1, 10)


def test_a_mask_of_trues_is_no_mask(network: TorchNetwork) -> None:
    image, audio, yes = features(3, 6), features(3, 9), np.ones(3, bool)
    plain = answer(network, image_features=image, audio_features=audio)
    masked = answer(
        network, image_features=image, image_features__present=yes, audio_features=audio, audio_features__present=yes
    )
    np.testing.assert_array_equal(plain, masked)
    np.testing.assert_allclose(plain.sum(axis=1), 1, rtol=1e-6)


def test_an_input_that_is_left_out_equals_one_that_is_masked(network: TorchNetwork) -> None:
    image, no = features(3, 6), np.zeros(3, bool)
    alone = answer(network, image_features=image)
    for filler in (np.zeros((3, 9), np.float32), np.full((3, 9), np.nan, np.float32), np.zeros((3, 1), np.float32)):
        masked = answer(network, image_features=image, audio_features=filler, audio_features__present=no)
        np.testing.assert_array_equal(alone, masked)


def test_rows_with_and_without_an_input_share_a_batch(network: TorchNetwork) -> None:
    image, audio = features(4, 6), features(4, 9)
    sees, hears = np.array([True, False, True, False]), np.array([True, True, False, False])
    mixed = answer(
        network, image_features=image, image_features__present=sees, audio_features=audio, audio_features__present=hears
    )
    both = answer(network, image_features=image[:1], audio_features=audio[:1])
    heard = answer(network, audio_features=audio[1:2])
    seen = answer(network, image_features=image[2:3])
    np.testing.assert_allclose(mixed[:3], np.concatenate([both, heard, seen]), rtol=1e-5)
    neither = answer(network, image_features__present=np.zeros(1, bool))
    np.testing.assert_allclose(mixed[3:], neither, rtol=1e-5)


def test_features_of_another_network_are_refused(network: TorchNetwork) -> None:
    with pytest.raises(InvalidInput, match="'audio_features' came with 8 columns, expected 9"):
        answer(network, audio_features=features(1, 8))


def test_nothing_at_all_is_refused(network: TorchNetwork) -> None:
    with pytest.raises(InvalidInput, match="send at least one"):
        answer(network)
