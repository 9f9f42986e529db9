"""The small parts: breaker, budget, sequences, admission, choice."""

from __future__ import annotations

from collections import Counter

import pytest

from encephalon.coordinator.admission import Admission
from encephalon.coordinator.balancing import choose
from encephalon.coordinator.breaker import Breaker, BreakerState
from encephalon.coordinator.replicas import Replica
from encephalon.coordinator.retry_budget import RetryBudget
from encephalon.coordinator.sequences import Sequences
from encephalon.core.errors import InvalidInput, Overloaded


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_breaker_opens_probes_and_closes(clock):
    breaker = Breaker(minimum=3, open_s=1.0, clock=clock)
    for _ in range(3):
        assert breaker.allows()
        breaker.failed()
    assert breaker.state is BreakerState.OPEN
    assert not breaker.allows()
    clock.now = 1.0
    assert breaker.allows()
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.allows()
    breaker.failed()
    assert breaker.state is BreakerState.OPEN
    clock.now = 2.0
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED


def test_a_probe_that_never_ends_does_not_block_for_ever(clock):
    breaker = Breaker(minimum=1, open_s=1.0, clock=clock)
    breaker.failed()
    clock.now = 1.0
    assert breaker.allows()
    clock.now = 2.0
    assert breaker.allows()


def test_a_breaker_bears_a_minority_of_failures(clock):
    breaker = Breaker(minimum=3, clock=clock)
    for _ in range(50):
        breaker.succeeded()
        breaker.succeeded()
        breaker.failed()
    assert breaker.state is BreakerState.CLOSED


def test_old_failures_do_not_count(clock):
    breaker = Breaker(minimum=3, window_s=5.0, clock=clock)
    for _ in range(20):
        clock.now += 6.0
        breaker.failed()
    assert breaker.state is BreakerState.CLOSED


def test_retries_are_a_share_of_the_requests():
    budget = RetryBudget(share=0.5, burst=4)
    assert sum(budget.take() for _ in range(10)) == 4
    for _ in range(4):
        budget.earn()
    assert sum(budget.take() for _ in range(10)) == 2


def test_sequences_are_bounded_and_expire(clock):
    sequences = Sequences(limit=3, idle_s=10.0, clock=clock)
    for number in range(5):
        sequences.keep(number, f"replica-{number}")
    assert len(sequences) == 3
    assert sequences.replica(0) is None
    clock.now = 6.0
    assert sequences.replica(4) == "replica-4"
    clock.now = 12.0
    assert sequences.replica(3) is None
    assert sequences.replica(4) == "replica-4"
    sequences.forget(4)
    assert len(sequences) == 0


def test_admission_counts_requests_and_bytes():
    admission = Admission(max_requests=2, max_bytes=100, max_request_bytes=80)
    admission.enter(60)
    with pytest.raises(Overloaded):
        admission.enter(60)
    admission.enter(10)
    with pytest.raises(Overloaded):
        admission.enter(1)
    admission.leave(60)
    admission.enter(60)
    with pytest.raises(InvalidInput, match="at most 80"):
        admission.enter(81)


def replica(name: str, outstanding: int = 0, latency_s: float = 0.01) -> Replica:
    made = Replica(name)
    made.outstanding, made.latency_s = outstanding, latency_s
    return made


def test_the_better_of_two_is_chosen():
    busy, idle = replica("busy", 5), replica("idle")
    assert {choose([busy, idle]) for _ in range(20)} == {idle}
    slow, quick = replica("slow", latency_s=1.0), replica("quick")
    assert {choose([slow, quick]) for _ in range(20)} == {quick}
    new, loaded = replica("new", 3, latency_s=0.0), replica("loaded", 1)
    assert choose([new, loaded]) is loaded


def test_equals_share_the_work():
    replicas = [replica(str(number)) for number in range(4)]
    counts = Counter(choose(replicas) for _ in range(2000))
    assert all(300 < counts[each] < 700 for each in replicas)


def test_the_tried_are_avoided_while_there_are_others():
    one, other = replica("one"), replica("other")
    assert {choose([one, other], [one]) for _ in range(20)} == {other}
    assert choose([one], [one]) is one
    assert choose([]) is None
