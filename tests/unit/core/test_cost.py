from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encephalon.core.cost import CostModel


@given(st.floats(1e-6, 1e-1), st.floats(0, 1e-1), st.integers(0, 2**32))
def test_finds_the_line(per_row: float, fixed: float, seed: int) -> None:
    random.seed(seed)
    cost = CostModel()
    for _ in range(100):
        rows = random.randint(1, 32)
        cost.observe(rows, per_row * rows + fixed)
    assert cost.estimate(16) == pytest.approx(per_row * 16 + fixed, rel=0.02)
    assert cost.estimate(1) == pytest.approx(per_row + fixed, rel=0.05, abs=1e-6)


def test_one_hiccup_moves_little_and_a_lasting_change_is_learned() -> None:
    random.seed(1)
    cost = CostModel()

    def batches(count: int, factor: float) -> None:
        for _ in range(count):
            rows = random.randint(1, 32)
            cost.observe(rows, factor * (0.001 * rows + 0.004) * random.uniform(0.95, 1.05))

    batches(100, 1.0)
    before = cost.estimate(32)
    cost.observe(16, 2.0)
    assert cost.estimate(32) == pytest.approx(before, rel=0.1)
    batches(20, 3.0)
    assert cost.estimate(32) == pytest.approx(0.108, rel=0.15)
    batches(20, 1.0)
    assert cost.estimate(32) == pytest.approx(0.036, rel=0.15)


def test_knows_nothing_at_first_and_is_never_negative() -> None:
    cost = CostModel()
    assert not cost.known
    assert cost.estimate(10) == 0.0
    cost.seed({1: 0.010, 32: 0.001})  # larger and faster: noise
    assert cost.per_row >= 0.0
    assert cost.fixed >= 0.0
    only_one_size = CostModel()
    only_one_size.observe(8, 0.08)
    assert only_one_size.estimate(8) == pytest.approx(0.08)
