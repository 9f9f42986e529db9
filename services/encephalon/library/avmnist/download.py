"""Fetches one file over HTTP: resumes what a cut connection left, and shows nothing under its name before it is
whole."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from encephalon.core.errors import Corrupt, InvalidInput, NotFound, Unavailable
from encephalon.library.avmnist.progress import Progress, silent

__all__ = ["DEFAULT_PATIENCE", "Patience", "fetch"]

CHUNK = 1 << 18


class Patience(NamedTuple):
    """When to give up."""

    attempts: int = 8
    """Connections in a row that bring nothing new; one that brings bytes starts the count again."""
    pause_seconds: float = 1.0
    """Before the second attempt; doubled before each further one."""
    timeout_seconds: float = 30.0
    """Of silence on a connection."""


DEFAULT_PATIENCE = Patience()


class _Cut(Exception):
    """The connection ended before the file did."""


def fetch(
    url: str, path: Path, md5: str | None = None, progress: Progress = silent, patience: Patience = DEFAULT_PATIENCE
) -> Path:
    """Downloads `url` to `path`, unless `path` is there already with this MD5.

    What arrived so far waits in `path` + `.part`, with the server's ETag beside it, and goes on where it stopped when
    the server can (HTTP Range, If-Range), also in a later call. Raises `NotFound` (the server has no such file),
    `Unavailable` (it cannot be reached, or keeps cutting) or `Corrupt` (the MD5 differs; the bytes are thrown away).
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise InvalidInput(f"'{url}' is no http or https address", url=url)
    if path.is_file() and (md5 is None or _md5(path) == md5):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    _persist(url, part, lambda done, total: progress(f"downloading {path.name}", done, total), patience)
    found = _md5(part)
    _etag_path(part).unlink(missing_ok=True)
    if md5 is not None and found != md5:
        part.unlink()
        raise Corrupt(f"{url} came damaged: its MD5 is {found}, expected {md5}; try again", url=url)
    part.rename(path)
    return path


def _persist(url: str, part: Path, told: Callable[[int, int | None], None], patience: Patience) -> None:
    fruitless, cause = 0, ""
    while fruitless < patience.attempts:
        before = _size(part)
        try:
            _continue(url, part, told, patience.timeout_seconds)
            return
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                raise NotFound(f"{url} is not there: the server says {error.code} {error.reason}", url=url) from error
            cause = f"the server says {error.code} {error.reason}"
        except (OSError, http.client.HTTPException, _Cut) as error:
            cause = str(error) or type(error).__name__
        fruitless = 1 if _size(part) > before else fruitless + 1
        if fruitless < patience.attempts:
            time.sleep(patience.pause_seconds * 2 ** (fruitless - 1))
    raise Unavailable(f"{url} cannot be downloaded after {patience.attempts} attempts: {cause}", url=url)


def _continue(url: str, part: Path, told: Callable[[int, int | None], None], timeout: float) -> None:
    have, etag = _size(part), _etag(part)
    request = urllib.request.Request(url, headers={"User-Agent": "encephalon"})  # noqa: S310 (fetch checked the scheme)
    if have and etag:
        # The server sends the rest only if the file is still the one we began with, and all of it otherwise.
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", etag)
    try:
        response = urllib.request.urlopen(request, timeout=timeout)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == 416:
            # The file we have is as long as the server's, or longer; start over and let the digest judge.
            part.unlink(missing_ok=True)
        raise
    with response:
        resumed = response.status == 206
        done = have if resumed else 0
        length = response.headers["Content-Length"]
        total = None if length is None else done + int(length)
        if not resumed:
            _etag_path(part).write_text(response.headers["ETag"] or "")
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                told(done, total)
    if total is not None and done < total:
        raise _Cut(f"the connection ended after {done} of {total} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _etag_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _etag(part: Path) -> str:
    path = _etag_path(part)
    text = path.read_text() if path.exists() else ""
    # If-Range takes strong validators only (RFC 9110, 13.1.5).
    return "" if text.startswith("W/") else text


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
