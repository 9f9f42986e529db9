"""A lender's slots are mapped; whatever is not surely one is not, and what was cut costs its own request only."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from encephalon.core.errors import FailedPrecondition, InvalidInput, NotFound
from encephalon.core.inference import MappedMemory
from encephalon.core.shared_memory import FOLDER

SIZE = 4096


@pytest.fixture
def memory() -> Iterator[MappedMemory]:
    found = MappedMemory(["/encephalon-"])
    yield found
    found.close()


@pytest.fixture
def slot() -> Iterator[Path]:
    path = FOLDER / f"encephalon-{secrets.token_hex(16)}"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    os.pwrite(descriptor, b"a" * SIZE, 0)
    os.close(descriptor)
    yield path
    path.unlink()


def lend(memory: MappedMemory, slot: Path, name: str = "", offset: int = 0) -> str:
    name = name or slot.name
    memory.register(name, f"/{slot.name}", offset, SIZE - offset)
    return name


def test_a_slot_is_read_and_written_where_it_lies(memory: MappedMemory, slot: Path) -> None:
    name = lend(memory, slot)
    read = memory.read(name, 8, 4)
    assert read.readonly
    memory.write(name, 10, memoryview(b"bb"))
    assert bytes(read) == b"aabb"
    assert slot.read_bytes()[8:12] == b"aabb"


def test_what_was_read_outlives_the_registration(memory: MappedMemory, slot: Path) -> None:
    name = lend(memory, slot)
    read = memory.read(name, 0, SIZE)
    memory.unregister(name)
    assert bytes(read) == b"a" * SIZE
    with pytest.raises(NotFound):
        memory.read(name, 0, 1)


def test_bounds_are_those_of_the_slot(memory: MappedMemory, slot: Path) -> None:
    name = lend(memory, slot)
    for offset, size in [(-1, 1), (0, SIZE + 1), (SIZE, 1)]:
        with pytest.raises(InvalidInput, match="outside"):
            memory.read(name, offset, size)
    with pytest.raises(InvalidInput, match="outside"):
        memory.write(name, SIZE - 1, memoryview(b"cc"))


def test_a_slot_that_was_cut_fails_its_request_and_not_the_process(memory: MappedMemory, slot: Path) -> None:
    name = lend(memory, slot)
    os.truncate(slot, 100)
    with pytest.raises(InvalidInput, match="it was cut"):
        memory.read(name, 0, SIZE)
    assert memory.read(name, 0, 100) == b"a" * 100


def test_writing_to_a_slot_that_was_cut_is_harmless(memory: MappedMemory, slot: Path) -> None:
    name = lend(memory, slot)
    os.truncate(slot, 0)
    try:
        memory.write(name, 0, memoryview(b"b" * SIZE))
    except FailedPrecondition:
        return
    assert slot.read_bytes() == b"b" * SIZE


@pytest.mark.parametrize("mode", [0o660, 0o606, 0o644])
def test_memory_that_others_can_open_is_copied(memory: MappedMemory, slot: Path, mode: int) -> None:
    slot.chmod(mode)
    lend(memory, slot)
    assert not memory._mappings


def test_memory_of_another_user_is_copied(memory: MappedMemory, slot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encephalon.core.inference.mapped.os.geteuid", lambda: os.getuid() + 1)
    lend(memory, slot)
    assert not memory._mappings


def test_what_a_client_names_itself_is_copied(memory: MappedMemory, slot: Path) -> None:
    lend(memory, slot, "mine")
    lend(memory, slot, offset=64)
    assert not memory._mappings


def test_mappings_are_bounded(memory: MappedMemory, slot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encephalon.core.inference.mapped.MAX_MAPPINGS", 0)
    name = lend(memory, slot)
    assert not memory._mappings
    assert memory.read(name, 0, 2) == b"aa"
