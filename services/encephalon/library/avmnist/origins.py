"""The public homes of the raw files, and how what they send becomes the folder that the builder reads."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple

from encephalon.core.errors import Corrupt, EncephalonError
from encephalon.library.avmnist import digests
from encephalon.library.avmnist.download import DEFAULT_PATIENCE, Patience, fetch
from encephalon.library.avmnist.progress import Progress, silent

__all__ = ["HOMES", "Home", "fetch_raw"]


class Home(NamedTuple):
    url: str
    name: str
    """Of the download in the cache."""
    target: str
    """Folder or file under the raw folder."""
    kind: Literal["file", "tar", "zip"]
    inside: str = ""
    """What lies in the archive under `*/{inside}` goes to `target`; the first part of a path is the archive's own
    folder."""
    md5: str | None = None
    """Where it is published. The archives are packed on demand, so only the files in them have lasting digests."""


_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_GITHUB = "https://github.com/"

HOMES: Sequence[Home] = (
    *(
        Home(_MNIST + name, name, f"mnist/{name}", "file", md5=md5)
        for name, md5 in (
            ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
            ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
            ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
        )
    ),
    Home(
        _GITHUB + "Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz",
        "free-spoken-digit-dataset-1.0.10.tar.gz",
        "fsdd/recordings",
        "tar",
        "recordings/",
    ),
    Home(_GITHUB + "karolpiczak/ESC-10/archive/refs/heads/master.zip", "esc-10-master.zip", "esc10", "zip"),
)


def fetch_raw(
    folder: Path,
    progress: Progress = silent,
    homes: Sequence[Home] = HOMES,
    expected: Mapping[str, str] | None = None,
    patience: Patience = DEFAULT_PATIENCE,
) -> Path:
    """Fills `folder` with `mnist/`, `fsdd/recordings/` and `esc10/`; what is there and whole is not fetched again.

    `expected` is the list of digests, by default the packaged one. Raises as `fetch` does, and `Corrupt` naming a
    damaged archive.
    """
    wanted = digests.packaged() if expected is None else expected
    for home in homes:
        if _is_whole(folder, home, wanted):
            continue
        if home.kind == "file":
            fetch(home.url, folder / home.target, home.md5, progress, patience)
        else:
            archive = fetch(home.url, folder / "downloads" / home.name, home.md5, progress, patience)
            progress(f"unpacking {home.name}", 0, None)
            with _named(archive, home):
                _unpack(archive, folder, home, wanted)
            archive.unlink()
    return folder


def _is_whole(folder: Path, home: Home, expected: Mapping[str, str]) -> bool:
    own = {name: value for name, value in expected.items() if name.startswith(home.target)}
    try:
        digests.verify(folder, own)
    except EncephalonError:
        return False
    return True


def _unpack(archive: Path, folder: Path, home: Home, expected: Mapping[str, str]) -> None:
    """Only files of the list are written, so no path in an archive leads out of the folder."""
    for name, file in _tar(archive) if home.kind == "tar" else _zip(archive):
        within = name.partition("/")[2]
        target = f"{home.target}/{within.removeprefix(home.inside)}"
        if within.startswith(home.inside) and target in expected:
            path = folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as copy:
                shutil.copyfileobj(file, copy)


def _tar(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                yield member.name, file


def _zip(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                with archive.open(member) as file:
                    yield member.filename, file


@contextmanager
def _named(archive: Path, home: Home) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
        archive.unlink(missing_ok=True)
        raise Corrupt(f"{home.url} came damaged and cannot be unpacked: {error}; try again", url=home.url) from error
