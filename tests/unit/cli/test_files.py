from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from encephalon.cli.files import read
from encephalon.core.contract import TensorSpec
from encephalon.core.errors import EncephalonError, InvalidInput, NotFound

IMAGE = TensorSpec("image", "UINT8", (-1, -1, -1))
COLOUR = TensorSpec("image", "UINT8", (-1, -1, -1, 3))
AUDIO = TensorSpec("audio", "INT16", (-1, -1))
WAVE = TensorSpec("audio", "FP32", (-1, -1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rgba = np.full((4, 6, 4), 255, np.uint8)
    Image.fromarray(rgba).save(tmp_path / "digit.png")
    soundfile.write(tmp_path / "digit.wav", np.array([0, 16384, -16384], np.int16), 8000)
    soundfile.write(tmp_path / "fast.wav", np.zeros(9, np.int16), 44100)
    soundfile.write(tmp_path / "stereo.wav", np.zeros((9, 2), np.int16), 8000)
    np.save(tmp_path / "digit.npy", np.zeros((2, 3), np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "several.npz", a=np.zeros(1))
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    for name in ("bad.png", "bad.wav", "bad.npy", "note.txt"):
        (tmp_path / name).write_bytes(b"not what it says")
    (tmp_path / "empty.png").touch()
    (tmp_path / "empty.npy").touch()
    return tmp_path


def test_a_picture_becomes_grey_or_colour_as_the_input_wants(folder: Path) -> None:
    assert read(folder / "digit.png", IMAGE, 8000).shape == (4, 6)
    assert read(folder / "digit.png", COLOUR, 8000).shape == (4, 6, 3)


def test_a_sound_becomes_integers_or_numbers_as_the_input_wants(folder: Path) -> None:
    np.testing.assert_array_equal(read(folder / "digit.wav", AUDIO, 8000), np.array([0, 16384, -16384], np.int16))
    np.testing.assert_array_equal(read(folder / "digit.wav", WAVE, 8000), np.array([0, 0.5, -0.5], np.float32))


def test_an_array_is_taken_as_it_is(folder: Path) -> None:
    assert read(folder / "digit.npy", WAVE, 8000).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "spec", "kind", "sentence"),
    [
        ("absent.png", IMAGE, NotFound, "there is no file"),
        ("note.txt", IMAGE, InvalidInput, "input files are .png, .wav or .npy"),
        ("bad.png", IMAGE, InvalidInput, "not a PNG picture"),
        ("empty.png", IMAGE, InvalidInput, "not a PNG picture"),
        ("bad.wav", AUDIO, InvalidInput, "not a WAV sound"),
        ("bad.npy", IMAGE, InvalidInput, "not a numpy array"),
        ("empty.npy", IMAGE, InvalidInput, "not a numpy array"),
        ("objects.npy", IMAGE, InvalidInput, "not a numpy array"),
        ("several.npy", IMAGE, InvalidInput, "holds several arrays"),
        ("digit.png", AUDIO, InvalidInput, "is a picture, but input 'audio' is INT16 [-1, -1]"),
        ("digit.wav", IMAGE, InvalidInput, "is a sound, but input 'image' is UINT8"),
        ("fast.wav", AUDIO, InvalidInput, "has a sample rate of 44100 Hz, input 'audio' expects 8000 Hz"),
        ("stereo.wav", AUDIO, InvalidInput, "has 2 channels"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(
    folder: Path, name: str, spec: TensorSpec, kind: type[EncephalonError], sentence: str
) -> None:
    with pytest.raises(kind) as raised:
        read(folder / name, spec, 8000)
    assert sentence in raised.value.message
