"""The downloader against a server that cuts, changes its mind, and sends rubbish."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from encephalon.core.errors import Corrupt, InvalidInput, NotFound, Unavailable
from encephalon.library.avmnist import digests, origins
from encephalon.library.avmnist.download import Patience, fetch
from encephalon.library.avmnist.origins import Home, fetch_raw
from tests.unit.library.raw_folder import make_raw_folder

BODY = np.random.default_rng(0).bytes(1_000_000)
MD5 = hashlib.md5(BODY).hexdigest()  # noqa: S324
IMPATIENT = Patience(attempts=3, pause_seconds=0.0, timeout_seconds=5.0)


@dataclass
class Files:
    """What the server has and how it misbehaves."""

    bodies: dict[str, bytes] = field(default_factory=lambda: {"/file": BODY})
    cut_after: int | None = None
    """Bytes after which every answer ends."""
    ranges: bool = True
    etag: str = '"one"'
    length: bool = True
    status: int | None = None
    asked: list[str] = field(default_factory=list)
    """The Range of each request, "" when there was none."""
    url: str = ""


def handler(files: Files) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files.asked.append(self.headers["Range"] or "")
            body = files.bodies.get(self.path)
            if files.status is not None or body is None:
                self.send_error(files.status or 404)
                return
            start = self._start(body)
            self.send_response(206 if start else 200)
            self.send_header("ETag", files.etag)
            if files.length:
                self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start:][: files.cut_after])

        def _start(self, body: bytes) -> int:
            asked = self.headers["Range"]
            if not asked or not files.ranges or self.headers["If-Range"] != files.etag:
                return 0
            return int(asked.removeprefix("bytes=").removesuffix("-"))

        def log_message(self, *_: object) -> None: ...

    return Handler


@pytest.fixture
def files() -> Iterator[Files]:
    files = Files()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(files)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        files.url = f"http://127.0.0.1:{server.server_port}"
        yield files
        server.shutdown()
        thread.join()


def test_a_whole_file_in_one_go_with_progress(files: Files, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    path = fetch(f"{files.url}/file", tmp_path / "new" / "file", MD5, lambda *news: told.append(news))
    assert path.read_bytes() == BODY
    assert told[-1] == ("downloading file", len(BODY), len(BODY))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_cut_connections_are_resumed_where_they_stopped(files: Files, tmp_path: Path) -> None:
    files.cut_after = 300_000
    assert fetch(f"{files.url}/file", tmp_path / "file", MD5, patience=IMPATIENT).read_bytes() == BODY
    assert files.asked == ["", "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(files: Files, tmp_path: Path) -> None:
    files.cut_after = 300_000
    with pytest.raises(KeyboardInterrupt):
        fetch(f"{files.url}/file", tmp_path / "file", MD5, _interrupt, IMPATIENT)
    assert not (tmp_path / "file").exists()
    begun = (tmp_path / "file.part").stat().st_size
    assert begun > 0
    files.cut_after = None
    assert fetch(f"{files.url}/file", tmp_path / "file", MD5, patience=IMPATIENT).read_bytes() == BODY
    assert files.asked[-1] == f"bytes={begun}-"


def test_a_server_without_ranges_starts_over(files: Files, tmp_path: Path) -> None:
    files.cut_after, files.ranges = 300_000, False
    with pytest.raises(Unavailable, match=r"after 3 attempts: .*300000 of 1000000 bytes"):
        fetch(f"{files.url}/file", tmp_path / "file", MD5, patience=IMPATIENT)
    files.cut_after = None
    assert fetch(f"{files.url}/file", tmp_path / "file", MD5, patience=IMPATIENT).read_bytes() == BODY


def test_a_file_that_changed_meanwhile_is_not_mixed_with_the_old(files: Files, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"old" * 1_000)
    (tmp_path / "file.part.etag").write_text('"zero"')
    assert fetch(f"{files.url}/file", tmp_path / "file", MD5, patience=IMPATIENT).read_bytes() == BODY


@pytest.mark.parametrize("etag", ['W/"weak"', ""])
def test_without_a_strong_etag_nothing_is_resumed(files: Files, tmp_path: Path, etag: str) -> None:
    files.etag = etag
    (tmp_path / "file.part").write_bytes(b"old" * 1_000)
    (tmp_path / "file.part.etag").write_text(etag)
    assert fetch(f"{files.url}/file", tmp_path / "file", MD5, patience=IMPATIENT).read_bytes() == BODY
    assert files.asked == [""]


def test_a_file_of_unknown_length(files: Files, tmp_path: Path) -> None:
    files.length = False
    told: list[int | None] = []
    fetch(f"{files.url}/file", tmp_path / "file", MD5, lambda _what, _done, total: told.append(total))
    assert set(told) == {None}


def test_what_is_there_and_whole_is_not_asked_for(files: Files, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BODY)
    fetch(f"{files.url}/file", tmp_path / "file", MD5)
    assert files.asked == []
    (tmp_path / "file").write_bytes(BODY[:-1])
    assert fetch(f"{files.url}/file", tmp_path / "file", MD5).read_bytes() == BODY


def test_damaged_bytes_are_thrown_away_and_named(files: Files, tmp_path: Path) -> None:
    files.bodies["/file"] = BODY[:-1] + b"!"
    with pytest.raises(Corrupt, match=f"/file came damaged: its MD5 is .*, expected {MD5}"):
        fetch(f"{files.url}/file", tmp_path / "file", MD5)
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_server_are_named(files: Files, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="/nothing is not there: the server says 404"):
        fetch(f"{files.url}/nothing", tmp_path / "file", patience=IMPATIENT)
    files.status = 503
    with pytest.raises(Unavailable, match="after 3 attempts: the server says 503"):
        fetch(f"{files.url}/file", tmp_path / "file", patience=IMPATIENT)
    assert len(files.asked) == 1 + 3
    files.status = 416
    (tmp_path / "file.part").write_bytes(b"too long")
    with pytest.raises(Unavailable):
        fetch(f"{files.url}/file", tmp_path / "file", patience=IMPATIENT)
    assert not (tmp_path / "file.part").exists()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be downloaded after 3 attempts"):
        fetch("http://127.0.0.1:1/file", tmp_path / "file", patience=IMPATIENT)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "nonsense"])
def test_other_schemes_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is no http or https address"):
        fetch(url, tmp_path / "file")


def _interrupt(what: str, done: int, total: int | None) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def homes(files: Files, tmp_path: Path) -> tuple[list[Home], dict[str, str]]:
    """The raw folder, served as its real homes serve it."""
    raw = make_raw_folder(tmp_path / "upstream")
    expected = digests.scan(raw)
    mnist = [name for name in expected if name.startswith("mnist/")]
    files.bodies = {f"/{name}": (raw / name).read_bytes() for name in mnist}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(raw / "fsdd" / "recordings", "fsdd-1.0/recordings")
        archive.add(raw / "mnist", "fsdd-1.0/else")
        archive.add(raw / "mnist", "../../escape")
    files.bodies["/fsdd.tar.gz"] = packed.getvalue()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as folder:
        for path in sorted((raw / "esc10").rglob("*.ogg")):
            folder.write(path, f"ESC-10-master/{path.relative_to(raw / 'esc10')}")
        folder.writestr("ESC-10-master/../../../escape.ogg", b"out")
    files.bodies["/esc10.zip"] = zipped.getvalue()
    return [
        *(Home(f"{files.url}/{name}", Path(name).name, name, "file") for name in mnist),
        Home(f"{files.url}/fsdd.tar.gz", "fsdd.tar.gz", "fsdd/recordings", "tar", "recordings/"),
        Home(f"{files.url}/esc10.zip", "esc10.zip", "esc10", "zip"),
    ], expected


def test_the_raw_folder_is_fetched_and_what_is_whole_is_kept(
    files: Files, homes: tuple[list[Home], dict[str, str]], tmp_path: Path
) -> None:
    files.cut_after = 20_000
    raw = fetch_raw(tmp_path / "cache" / "raw", homes=homes[0], expected=homes[1], patience=IMPATIENT)
    assert digests.scan(raw) == homes[1]
    assert {path.name for path in tmp_path.iterdir()} == {"upstream", "cache"}
    assert not list(tmp_path.rglob("escape*"))
    count = len(files.asked)
    fetch_raw(raw, homes=homes[0], expected=homes[1], patience=IMPATIENT)
    assert len(files.asked) == count
    damaged = raw / "fsdd" / "recordings" / "0_ada_0.wav"
    damaged.write_bytes(b"")
    files.cut_after = None
    fetch_raw(raw, homes=homes[0], expected=homes[1], patience=IMPATIENT)
    assert digests.scan(raw) == homes[1]
    assert len(files.asked) == count + 1


@pytest.mark.parametrize("name", ["/fsdd.tar.gz", "/esc10.zip"])
def test_a_damaged_archive_is_named_and_thrown_away(
    files: Files, homes: tuple[list[Home], dict[str, str]], tmp_path: Path, name: str
) -> None:
    whole = files.bodies[name]
    files.bodies[name] = whole[: len(whole) // 2]
    with pytest.raises(Corrupt, match=f"{name} came damaged and cannot be unpacked"):
        fetch_raw(tmp_path / "raw", homes=homes[0], expected=homes[1], patience=IMPATIENT)
    files.bodies[name] = whole
    fetch_raw(tmp_path / "raw", homes=homes[0], expected=homes[1], patience=IMPATIENT)


def test_the_public_homes_cover_every_packaged_file() -> None:
    for name in digests.packaged():
        assert any(name == home.target or name.startswith(f"{home.target}/") for home in origins.HOMES)
