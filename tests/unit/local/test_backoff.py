from __future__ import annotations

from encephalon.local.backoff import Backoff


def test_doubles_up_to_the_longest() -> None:
    backoff = Backoff(first_s=0.5, longest_s=3.0, steady_s=60.0)
    assert [backoff.after(1.0) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_process_that_ran_long_starts_anew() -> None:
    backoff = Backoff(first_s=0.5, longest_s=3.0, steady_s=60.0)
    for _ in range(4):
        backoff.after(1.0)
    assert backoff.after(60.0) == 0.5
    assert backoff.after(1.0) == 1.0
