"""The list of raw files that AV-MNIST is made of, each with the digest of its content.

The list ships with the package (`digests.txt.gz`), so that a missing or damaged file is named instead of heard. A
line is the first 32 hexadecimal digits of a SHA-256 and a path under the raw folder. A `.gz` file counts by what it
unpacks to, because mirrors pack the same bytes anew.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path

from encephalon.core.errors import Corrupt, NotFound
from encephalon.library.avmnist.progress import Progress, silent

__all__ = ["digest", "dumps", "loads", "packaged", "scan", "verify"]

DIGITS = 32
"""128 bits still tell any two of 3,400 files apart, and halve the list."""

FOLDERS = ("mnist", "fsdd/recordings", "esc10")
SUFFIXES = (".gz", ".wav", ".ogg")


def digest(path: Path) -> str:
    """Raises `NotFound` when the file is not there and `Corrupt` when a `.gz` cannot be unpacked."""
    try:
        data = path.read_bytes()
        content = gzip.decompress(data) if path.suffix == ".gz" else data
    except FileNotFoundError as error:
        raise NotFound(f"the raw file {path} is missing", path=path) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Corrupt(f"the raw file {path} is damaged: it cannot be unpacked ({error})", path=path) from error
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def verify(folder: Path, expected: Mapping[str, str], progress: Progress = silent) -> None:
    """Compares every file of `expected` (path to digest) under `folder`. Raises `NotFound` or `Corrupt`, which name
    the first bad file."""
    if not folder.is_dir():
        raise NotFound(f"the raw folder {folder} is missing; it should hold {', '.join(FOLDERS)}", path=folder)
    for done, (name, wanted) in enumerate(expected.items()):
        progress("checking raw files", done, len(expected))
        found = digest(folder / name)
        if found != wanted:
            raise Corrupt(
                f"the raw file {folder / name} is damaged: its SHA-256 is {found}..., not {wanted}...; fetch it again",
                path=folder / name,
            )
    progress("checking raw files", len(expected), len(expected))


def scan(folder: Path) -> dict[str, str]:
    """Path to digest of every raw file under `folder`, sorted by path: how the packaged list was made."""
    return {name: digest(folder / name) for name in sorted(_raw_files(folder))}


def dumps(digests: Mapping[str, str]) -> bytes:
    text = "".join(f"{value} {name}\n" for name, value in digests.items())
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def loads(data: bytes) -> dict[str, str]:
    lines = gzip.decompress(data).decode().splitlines()
    return {name: value for value, name in (line.split(" ", 1) for line in lines)}


def packaged() -> dict[str, str]:
    """MNIST (4 files), FSDD 1.0.10 (3,000) and ESC-10 (400)."""
    return loads(resources.files(__package__).joinpath("digests.txt.gz").read_bytes())


def _raw_files(folder: Path) -> Iterator[str]:
    for part in FOLDERS:
        for path in (folder / part).rglob("*"):
            if path.suffix in SUFFIXES:
                yield path.relative_to(folder).as_posix()
