"""Memory that two processes share: opened only when it is what it says, and never torn."""

from __future__ import annotations

import os
import tempfile

import pytest
import torch

from encephalon.api.parameter_server.v1 import parameter_server_pb2 as pb
from encephalon.core.errors import DeadlineExceeded, Denied, FailedPrecondition
from encephalon.learning.segments import PAGE, Segment, created, opened, supported
from encephalon.learning.sharing import read

pytestmark = pytest.mark.skipif(not supported(), reason="memfd_create is Linux's")


def test_what_one_writes_the_other_reads() -> None:
    mine = created(400)
    other = opened(mine.described(), write=True)
    mapped = other.mapped()
    values = torch.randn(100)
    mine.write(PAGE, values)
    assert torch.equal(mapped.tensor(mapped.view(), PAGE, 100), values)
    mapped.words[1] = 7
    assert mine.words(2) == (0, 7)
    mine.close()
    other.close()
    into = mapped.tensor(mapped.view(), PAGE + 40, 90)
    assert torch.equal(into, values[10:])


def test_it_has_no_name_that_could_be_left() -> None:
    before = set(os.listdir("/dev/shm"))
    with_name = created(400)
    assert set(os.listdir("/dev/shm")) == before
    with_name.close()
    with_name.close()


@pytest.mark.parametrize("offset", [0, PAGE - 4, PAGE + 4, 1 << 40])
def test_places_outside_are_refused(offset: int) -> None:
    segment = created(400)
    mapped = segment.mapped()
    with pytest.raises(FailedPrecondition):
        mapped.tensor(mapped.view(), offset, 100)
    with pytest.raises(ValueError, match="outside"):
        segment.write(offset, torch.zeros(100))
    with pytest.raises(ValueError, match="outside"):
        segment.read(offset, torch.zeros(100))
    segment.close()


def test_only_what_was_described_is_opened() -> None:
    segment = created(400)
    right = segment.described()
    unsealed = os.memfd_create("encephalon-unsealed")
    os.ftruncate(unsealed, PAGE + 400)
    with tempfile.NamedTemporaryFile(prefix="encephalon-") as file:
        for wrong in (
            memory(right, name="encephalon-0123456789abcdef"),
            memory(right, name=""),
            memory(right, descriptor=1 << 20),
            memory(right, process=1 << 30),
            memory(right, bytes=PAGE + 404),
            memory(right, descriptor=file.fileno(), name=os.path.basename(file.name)),
            memory(right, descriptor=unsealed, name="encephalon-unsealed"),
        ):
            with pytest.raises(Denied):
                opened(wrong, write=False)
    os.close(unsealed)
    segment.close()


def memory(right: pb.Memory, **other: object) -> pb.Memory:
    changed = pb.Memory()
    changed.CopyFrom(right)
    for name, value in other.items():
        setattr(changed, name, value)
    return changed


class Changing(Segment):
    """Parameters that are changed while they are read, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__(os.open(os.devnull, os.O_RDONLY), "", 0)
        self.times = times
        self.changes = 0

    def words(self, count: int) -> tuple[int, ...]:
        return (self.changes, 10 + self.changes)[:count]

    def read(self, offset: int, into: torch.Tensor) -> None:
        into.fill_(self.changes)
        if self.times:
            self.times -= 1
            self.changes += 2


def test_parameters_that_change_while_they_are_read_are_read_again() -> None:
    into = torch.zeros(3)
    assert read(Changing(2), PAGE, into, within_s=5.0) == 14
    assert into.tolist() == [4.0, 4.0, 4.0]


def test_parameters_that_are_changed_without_end_are_given_up() -> None:
    stuck = Changing(0)
    stuck.changes = 1
    with pytest.raises(DeadlineExceeded):
        read(stuck, PAGE, torch.zeros(3), within_s=0.01)
