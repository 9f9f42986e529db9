from __future__ import annotations

import pytest

from encephalon.core.errors import Unavailable
from encephalon.training.pipeline.patience import LOOK_S, Patience


def test_who_is_silent_is_named_and_beats_are_enough() -> None:
    patience = Patience(["a", "b"], stall_s=1.0, compute_s=100.0)
    for _ in range(4):
        patience.looked(LOOK_S, [])
        patience.heard("a", beat=True)
    with pytest.raises(Unavailable, match="region 'b' has not said a word for 1 s"):
        patience.looked(LOOK_S, [])


def test_a_pause_of_the_driver_is_no_silence_of_regions() -> None:
    patience = Patience(["a"], stall_s=1.0, compute_s=1.0)
    patience.looked(1000.0, ["a"])
    patience.heard("a", beat=True)


def test_who_beats_and_owes_a_pass_too_long_is_named() -> None:
    patience = Patience(["a"], stall_s=1.0, compute_s=2.0)
    for _ in range(8):
        patience.looked(LOOK_S, ["a"])
        patience.heard("a", beat=True)
    with pytest.raises(Unavailable, match="has not finished a pass for 2 s"):
        patience.looked(LOOK_S, ["a"])


def test_time_without_a_pass_does_not_count() -> None:
    patience = Patience(["a"], stall_s=9.0, compute_s=1.0)
    for owing in (["a"], [], ["a"], [], ["a"], []) * 3:
        patience.looked(LOOK_S, owing)
