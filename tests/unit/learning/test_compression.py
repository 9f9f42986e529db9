"""Codecs: how they round, what they remember, and that they hide nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encephalon.core.errors import InvalidInput
from encephalon.learning.compression import ErrorFeedback, Piece, Rest, decode, dense
from encephalon.learning.frames import MAX_PAYLOAD, Codec

NAN, INF = float("nan"), float("inf")


def decoded(size: int, pieces: list[Piece]) -> torch.Tensor:
    into = torch.full((size,), 77.0)
    for piece in pieces:
        assert len(piece.payload) <= MAX_PAYLOAD
        for _ in range(2):  # a repetition adds nothing
            decode(piece.codec, piece.payload, into[piece.offset : piece.offset + piece.count])
    assert [piece.offset for piece in pieces] == [0, *np.cumsum([piece.count for piece in pieces])[:-1]]
    return into


def bits(values: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.array(values, np.uint32).view(np.float32))


def test_float32_is_exact_and_not_copied() -> None:
    values = torch.randn(2 * MAX_PAYLOAD // 4 + 3)
    pieces = list(dense(values, Codec.FP32))
    assert torch.equal(decoded(len(values), pieces), values)
    values[0] = 5.0
    assert np.frombuffer(pieces[0].payload, np.float32)[0] == 5.0


def test_bfloat16_rounds_to_the_nearest_and_ties_to_even() -> None:
    given_, expected = zip(
        (0x3F80_0000, 0x3F80_0000),
        (0x3F80_7FFF, 0x3F80_0000),
        (0x3F80_8000, 0x3F80_0000),  # a tie, and 3F80 is even
        (0x3F80_8001, 0x3F81_0000),
        (0x3F81_8000, 0x3F82_0000),  # a tie, and 3F81 is odd
        (0xBF81_8000, 0xBF82_0000),
        (0x7F7F_FFFF, 0x7F80_0000),
        (0x0000_0001, 0x0000_0000),
        (0x8000_0000, 0x8000_0000),
        strict=True,
    )
    got = decoded(len(given_), list(dense(bits(list(given_)), Codec.BF16)))
    assert got.numpy().view(np.uint32).tolist() == list(expected)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40))
def test_bfloat16_is_what_torch_says(values: list[float]) -> None:
    exact = torch.tensor(values)
    assert torch.equal(decoded(len(exact), list(dense(exact, Codec.BF16))), exact.to(torch.bfloat16).float())


@pytest.mark.parametrize("codec", list(Codec))
def test_what_is_not_finite_arrives(codec: Codec) -> None:
    values = torch.randn(1000)
    values[3], values[500], values[999] = NAN, INF, -INF
    pieces = ErrorFeedback(0.003).choose(0, values, {}).pieces() if codec is Codec.TOPK else dense(values, codec)
    got = decoded(1000, list(pieces))
    assert math.isnan(got[3])
    assert got[500] == INF
    assert got[999] == -INF


def test_top_k_sends_the_largest_and_then_what_it_kept() -> None:
    memory = ErrorFeedback(0.25)
    gradient = torch.tensor([1.0, -8.0, 3.0, 0.5, 4.0, 0.0, -2.0, 1.5])
    rest: Rest = {}
    first = decoded(8, list(memory.choose(0, gradient, rest).pieces()))
    assert first.tolist() == [0, -8, 0, 0, 4, 0, 0, 0]
    memory.keep(rest)
    second = decoded(8, list(memory.choose(0, gradient, rest).pieces()))
    assert second.tolist() == [0, -8, 6, 0, 0, 0, 0, 0]


def test_nothing_is_lost_over_many_updates() -> None:
    memory, size, rest = ErrorFeedback(0.1), 200, Rest()
    sent, given_ = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for step in range(12):
        gradient = torch.randn(size, generator=torch.Generator().manual_seed(step))
        sent += decoded(size, list(memory.choose(0, gradient, rest).pieces()))
        given_ += gradient
        memory.keep(rest)
    left = decoded(size, list(ErrorFeedback(1.0).choose(0, rest[0], {}).pieces()))
    torch.testing.assert_close(sent + left, given_, atol=1e-4, rtol=0)


def test_a_share_that_was_dropped_leaves_the_memory_alone() -> None:
    memory, gradient, rest = ErrorFeedback(0.5), torch.tensor([1.0, 2.0]), Rest()
    memory.choose(0, gradient, rest)
    memory.keep(rest)
    memory.choose(0, torch.tensor([9.0, 9.0]), {})
    assert decoded(2, list(memory.choose(0, gradient, {}).pieces())).tolist() == [2.0, 0.0]


def test_what_is_not_finite_does_not_stay_in_the_memory() -> None:
    memory = ErrorFeedback(0.25)
    rest: Rest = {}
    memory.choose(0, torch.tensor([NAN, NAN, INF, 1.0]), rest)
    memory.keep(rest)
    assert torch.isfinite(decoded(4, list(memory.choose(0, torch.zeros(4), rest).pieces()))).all()


def test_all_elements_are_exact_and_cut_into_frames() -> None:
    values = torch.randn(MAX_PAYLOAD // 8 * 2 + 5)
    pieces = list(ErrorFeedback(1.0).choose(0, values, {}).pieces())
    assert len(pieces) == 3
    assert torch.equal(decoded(len(values), pieces), values)


@pytest.mark.parametrize("indices", [[1, 1], [2, 1], [0, 4], [0, 1 << 31]])
def test_indices_that_cannot_be_are_refused(indices: list[int]) -> None:
    payload = np.array(indices, np.uint32).tobytes() + bytes(8)
    with pytest.raises(InvalidInput, match="top-k"):
        decode(Codec.TOPK, memoryview(payload), torch.zeros(4))


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, NAN])
def test_a_share_that_cannot_be_is_refused(share: float) -> None:
    with pytest.raises(InvalidInput, match="top_k"):
        ErrorFeedback(share)
