"""The frames of the data plane: what goes in comes out, and nothing else gets through."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encephalon.core.errors import InvalidInput
from encephalon.learning.frames import (
    ABSENT,
    HEADER,
    LAST,
    MAX_MESSAGE,
    MAX_PAYLOAD,
    SHARED,
    Batch,
    Codec,
    Frame,
    Key,
    Place,
    frames,
)

KEY = Key(generation=3, number=1 << 40, rank=2, attempt=1)
SIZES = {0: 4, 7: 10}


def message(*wanted: Frame) -> bytes:
    batch = Batch()
    for frame in wanted:
        batch.add(frame)
    return batch.take()


def frame(
    slice: int = 7,
    offset: int = 0,
    count: int = 10,
    codec: Codec = Codec.FP32,
    flags: int = LAST,
    payload: bytes = bytes(40),
) -> Frame:
    return Frame(KEY, slice, offset, count, codec, flags, memoryview(payload))


GOOD = [
    frame(),
    frame(0, count=4, payload=bytes(range(16))),
    frame(offset=0, count=3, flags=0, payload=bytes(12)),
    frame(offset=3, count=7, codec=Codec.BF16, payload=bytes(14)),
    frame(codec=Codec.TOPK, payload=b""),
    frame(codec=Codec.TOPK, payload=bytes(16)),
    frame(flags=LAST | ABSENT, payload=b""),
    frame(flags=LAST | SHARED, payload=Place(1, 2, 3).packed()),
]


def test_frames_come_as_they_went_many_in_a_message() -> None:
    assert list(frames(message(*GOOD), SIZES)) == GOOD
    assert Place.of(GOOD[-1].payload) == Place(1, 2, 3)


def test_a_batch_is_full_before_a_message_is_too_large() -> None:
    batch, full = Batch(), frame(0, 0, MAX_PAYLOAD // 4, payload=bytes(MAX_PAYLOAD))
    assert batch.fits(full)
    batch.add(full)
    assert not batch.fits(full)
    small = frame(flags=LAST | ABSENT, payload=b"")
    while batch.fits(small):
        batch.add(small)
    assert len(batch) <= MAX_MESSAGE
    taken = batch.take()
    assert len(taken) <= MAX_MESSAGE
    assert len(batch) == 0


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (frame(slice=3), "slice 3 came, which was not expected"),
        (frame(count=0, payload=b""), "0 elements"),
        (frame(offset=1), "10 elements at 1"),
        (frame(offset=1 << 63, count=1 << 63), "elements at"),
        (frame(flags=0), "ends at 10"),
        (frame(count=3, payload=bytes(12)), "a frame ends it at 3"),
        (frame(payload=bytes(39)), "39 bytes"),
        (frame(codec=Codec.BF16), "40 bytes"),
        (frame(codec=Codec.TOPK, payload=bytes(12)), "12 bytes"),
        (frame(codec=Codec.TOPK, payload=bytes(88)), "88 bytes"),
        (frame(flags=LAST | ABSENT), "40 bytes"),
        (frame(offset=5, count=5, flags=LAST | ABSENT, payload=b""), "0 bytes for 5 of 10"),
        (frame(flags=LAST | SHARED, payload=bytes(23)), "23 bytes"),
        (frame(flags=LAST | SHARED | ABSENT, payload=b""), "flags 7"),
        (frame(flags=LAST | 64), "flags 65"),
        (frame(codec=Codec.BF16, flags=LAST | SHARED, payload=bytes(24)), "codec 1"),
    ],
)
def test_a_bad_frame_is_refused_with_a_sentence(bad: Frame, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        list(frames(message(bad), SIZES))


def header(magic: bytes = b"ENF1", codec: int = 0, zero: int = 0, length: int = 40) -> bytes:
    return HEADER.pack(magic, codec, LAST, zero, 7, 0, 0, length, 1, 1, 0, 10)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (b"", "empty message"),
        (b"ENF1", "4 bytes came"),
        (message(GOOD[0])[:-1], "says 40 bytes and 39 came"),
        (message(GOOD[0]) + b"x", "1 bytes came after"),
        (header(magic=b"ENF2") + bytes(40), "ENF2"),
        (header(zero=1) + bytes(40), "both sides"),
        (header(codec=9) + bytes(40), "codec 9"),
        (header(length=(1 << 32) - 1) + bytes(40), "at most"),
    ],
)
def test_a_bad_message_is_refused_with_a_sentence(bad: bytes, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        list(frames(bad, SIZES))


@given(st.data())
def test_damage_is_refused_or_stays_inside(data: st.DataObject) -> None:
    damaged = bytearray(message(*GOOD))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    with contextlib.suppress(InvalidInput):
        for found in frames(bytes(damaged[:cut]), SIZES):
            assert 0 <= found.offset < found.offset + found.count <= SIZES[found.slice]
