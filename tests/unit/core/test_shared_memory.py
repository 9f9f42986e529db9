"""Regions of shared memory: what is allowed, and what a client may do to them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from encephalon.core.errors import AlreadyExists, Denied, InvalidInput, NotFound, Overloaded
from encephalon.core.shared_memory import ANY_NAME, FOLDER, MAX_REGIONS, SharedMemory


@pytest.fixture
def object_() -> Iterator[Path]:
    """1,000 bytes, counting from 0 to 249 four times."""
    path = FOLDER / f"encephalon-test-{secrets.token_hex(8)}"
    path.write_bytes(bytes(range(250)) * 4)
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    memory = SharedMemory(ANY_NAME)
    yield memory
    memory.close()


def test_reads_and_writes_inside_the_region(memory: SharedMemory, object_: Path) -> None:
    memory.register("r", f"/{object_.name}", 10, 100)
    assert bytes(memory.read("r", 5, 3)) == bytes([15, 16, 17])
    memory.write("r", 98, memoryview(b"ab"))
    assert object_.read_bytes()[106:112] == bytes([106, 107, *b"ab", 110, 111])
    for offset, size in ((0, 101), (100, 1), (-1, 2), (0, -1)):
        with pytest.raises(InvalidInput, match="outside shared memory 'r', which has 100 bytes"):
            memory.read("r", offset, size)
    with pytest.raises(InvalidInput):
        memory.write("r", 99, memoryview(b"ab"))


def test_status_and_unregister(memory: SharedMemory, object_: Path) -> None:
    memory.register("a", object_.name, 0, 10)
    memory.register("b", f"/{object_.name}", 990, 10)
    assert [(each.name, each.offset, each.byte_size) for each in memory.status()] == [("a", 0, 10), ("b", 990, 10)]
    assert memory.status("b")[0].key == f"/{object_.name}"
    memory.unregister("a")
    memory.unregister("a")
    with pytest.raises(NotFound, match="'a' is not registered"):
        memory.read("a", 0, 1)
    with pytest.raises(NotFound):
        memory.status("a")
    memory.unregister()
    assert memory.status() == []


def test_descriptors_are_given_back(memory: SharedMemory, object_: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        memory.register(str(number), object_.name, 0, 10)
        with pytest.raises(InvalidInput):
            memory.register(f"too long {number}", object_.name, 991, 10)
    memory.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "key", ["", "/", "/a/b", "../etc/passwd", "/../etc/passwd", "..", "/.", "a\x00b", "a\nb", "//a", "x" * 300]
)
def test_keys_that_are_no_name(memory: SharedMemory, key: str) -> None:
    with pytest.raises(InvalidInput, match="expected '/' and one name"):
        memory.register("r", key, 0, 1)


def test_a_symbolic_link_is_not_followed(memory: SharedMemory, object_: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    link = FOLDER / f"encephalon-test-{secrets.token_hex(8)}"
    link.symlink_to(secret)
    try:
        with pytest.raises(Denied, match="cannot be opened"):
            memory.register("r", link.name, 0, 1)
    finally:
        link.unlink()


def test_only_allowed_prefixes(object_: Path) -> None:
    with pytest.raises(Denied, match="allowed prefixes: none"):
        SharedMemory(()).register("r", object_.name, 0, 1)
    with pytest.raises(Denied, match="allowed prefixes: /other-"):
        SharedMemory(["/other-"]).register("r", object_.name, 0, 1)
    allowed = SharedMemory(["/encephalon-test-"])
    allowed.register("r", object_.name, 0, 1)
    allowed.close()


def test_what_cannot_be_registered(memory: SharedMemory, object_: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        memory.register("r", f"encephalon-test-{secrets.token_hex(8)}", 0, 1)
    with pytest.raises(InvalidInput, match="has only 1000"):
        memory.register("r", object_.name, 1, 1000)
    with pytest.raises(InvalidInput, match="without a name"):
        memory.register("", object_.name, 0, 1)
    with pytest.raises(InvalidInput, match="expected at least 0 and 1"):
        memory.register("r", object_.name, 0, 0)
    memory.register("r", object_.name, 0, 1)
    with pytest.raises(AlreadyExists):
        memory.register("r", object_.name, 0, 1)


def test_regions_are_bounded(memory: SharedMemory, object_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_REGIONS <= 512
    monkeypatch.setattr("encephalon.core.shared_memory.MAX_REGIONS", 2)
    memory.register("1", object_.name, 0, 1)
    memory.register("2", object_.name, 0, 1)
    with pytest.raises(Overloaded):
        memory.register("3", object_.name, 0, 1)


def test_memory_that_was_cut_spoils_only_the_request(memory: SharedMemory, object_: Path) -> None:
    memory.register("r", object_.name, 0, 1000)
    os.truncate(object_, 100)
    with pytest.raises(InvalidInput, match="gave 100 of 1000 bytes"):
        memory.read("r", 0, 1000)


def test_what_was_read_does_not_change(memory: SharedMemory, object_: Path) -> None:
    memory.register("r", object_.name, 0, 1000)
    data = memory.read("r", 0, 3)
    memory.write("r", 0, memoryview(b"xyz"))
    assert bytes(data) == b"\x00\x01\x02"
