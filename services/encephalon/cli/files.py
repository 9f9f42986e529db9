"""Pictures, sounds and arrays from files, as the numpy arrays that a brain's input wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from encephalon.core.contract import TensorSpec
from encephalon.core.errors import InvalidInput, NotFound

__all__ = ["read"]

Array = np.ndarray[Any, Any]


def read(path: Path, spec: TensorSpec, sample_rate: int) -> Array:
    """Reads .png, .wav or .npy for the input `spec`; pictures and sounds are one row, arrays are taken as they are.

    NotFound when there is no such file, InvalidInput when it holds something else. `sample_rate` (Hz) is what a .wav
    must have.
    """
    if not path.is_file():
        raise NotFound(f"there is no file {path} for input '{spec.name}'", path=path)
    kind = path.suffix.lower()
    if kind == ".png":
        return picture(path, spec)
    if kind == ".wav":
        return sound(path, spec, sample_rate)
    if kind == ".npy":
        return array(path, spec)
    raise InvalidInput(f"{path} ends in '{kind}'; input files are .png, .wav or .npy", path=path)


def picture(path: Path, spec: TensorSpec) -> Array:
    """Grey [height, width] where the input has no channels, else colour [height, width, 3]; 8 bits each."""
    from PIL import Image

    rank = len(spec.shape) - 1
    if spec.datatype != "UINT8" or rank not in (2, 3):
        raise wrong(path, spec, "a picture")
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return np.asarray(image.convert("L" if rank == 2 else "RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"{path} is not a PNG picture that can be read: {error}", path=path) from error


def sound(path: Path, spec: TensorSpec, sample_rate: int) -> Array:
    """Mono [samples]: 16-bit integers, or numbers from -1 to 1, as the input has them."""
    import soundfile

    kinds = {"INT16": "int16", "FP32": "float32"}
    if spec.datatype not in kinds or len(spec.shape) != 2:
        raise wrong(path, spec, "a sound")
    try:
        samples, rate = soundfile.read(path, dtype=kinds[spec.datatype], always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise InvalidInput(f"{path} is not a WAV sound that can be read: {error}", path=path) from error
    if rate != sample_rate:
        raise InvalidInput(
            f"{path} has a sample rate of {rate} Hz, input '{spec.name}' expects {sample_rate} Hz; "
            f"convert it first, for example with: sox {path.name} -r {sample_rate} {path.stem}-{sample_rate}.wav",
            path=path,
            got=rate,
            expected=sample_rate,
        )
    if samples.shape[1] != 1:
        raise InvalidInput(
            f"{path} has {samples.shape[1]} channels, input '{spec.name}' expects one; mix it to mono first", path=path
        )
    mono: Array = samples[:, 0]
    return mono


def array(path: Path, spec: TensorSpec) -> Array:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidInput(f"{path} is not a numpy array that can be read: {error}", path=path) from error
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise InvalidInput(
            f"{path} holds several arrays; save the one for input '{spec.name}' with numpy.save", path=path
        )
    return loaded


def wrong(path: Path, spec: TensorSpec, what: str) -> InvalidInput:
    return InvalidInput(
        f"{path} is {what}, but input '{spec.name}' is {spec.datatype} {list(spec.shape)}; send a .npy file",
        path=path,
        expected=f"{spec.datatype} {list(spec.shape)}",
    )
