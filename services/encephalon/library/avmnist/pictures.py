"""MNIST's pictures, reduced to a few principal components that are fitted on the training pictures only."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encephalon.core.errors import Corrupt, NotFound

__all__ = ["PrincipalComponents", "fit", "read_idx"]

CHUNK = 4_096
"""Pictures converted to float64 at a time: 25 MB."""


class PrincipalComponents(NamedTuple):
    mean: NDArray[np.float64]
    """[784]"""
    components: NDArray[np.float64]
    """[rank, 784], orthonormal rows"""
    kept_energy: float
    """The share of the variance that the components hold, 0 to 1."""

    def reconstruct(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Projects uint8 [N, H, W] on the components and back; clipped and rounded to 8 bits, same shape."""
        result = np.empty_like(pictures)
        for start in range(0, len(pictures), CHUNK):
            part = pictures[start : start + CHUNK]
            centred = part.reshape(len(part), -1) - self.mean
            rebuilt = centred @ self.components.T @ self.components + self.mean
            result[start : start + CHUNK] = np.clip(np.rint(rebuilt), 0, 255).reshape(part.shape)
        return result


def fit(pictures: NDArray[np.uint8], rank: int) -> PrincipalComponents:
    """Fits on uint8 [N, H, W]. The second moments are sums of integers below 2**53, so they are exact in any order of
    summation."""
    size = pictures[0].size
    moments = np.zeros((size, size))
    for start in range(0, len(pictures), CHUNK):
        part = pictures[start : start + CHUNK].reshape(-1, size).astype(np.float64)
        moments += part.T @ part
    mean = pictures.reshape(-1, size).sum(axis=0, dtype=np.int64) / len(pictures)
    values, vectors = np.linalg.eigh(moments / len(pictures) - np.outer(mean, mean))
    largest = vectors[:, ::-1][:, :rank].T
    kept = float(values[::-1][:rank].sum() / values.sum())
    return PrincipalComponents(mean, np.ascontiguousarray(largest), kept)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads a gzipped IDX file of unsigned bytes (magic 0, 0, 8, rank; big-endian sizes). Raises `NotFound` or
    `Corrupt`."""
    try:
        data = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise NotFound(f"the raw file {path} is missing", path=path) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Corrupt(f"the raw file {path} is damaged: it cannot be unpacked ({error})", path=path) from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or len(data) < 4 + 4 * data[3]:
        raise Corrupt(f"the raw file {path} is no IDX file of unsigned bytes", path=path)
    start = 4 + 4 * data[3]
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    if len(data) - start != int(np.prod(shape)):
        raise Corrupt(
            f"the raw file {path} has {len(data) - start} bytes of content, its header says {shape}", path=path
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
