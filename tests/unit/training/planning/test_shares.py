"""What holds of every plan, whatever the speeds, limits and batch."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encephalon.core.errors import InvalidInput
from encephalon.training.planning import Planner
from encephalon.training.planning.apportionment import apportioned
from tests.unit.training.planning.cluster import settings

SPEEDS = st.lists(st.floats(min_value=1e-6, max_value=1e9), min_size=1, max_size=12)


def planner_of(speeds: list[float]) -> tuple[Planner, list[str]]:
    workers = [f"worker-{number}" for number in range(len(speeds))]
    planner = Planner(settings())
    planner.restore(dict(zip(workers, speeds, strict=True)))
    return planner, workers


@given(SPEEDS, st.integers(1, 5000), st.integers(1, 40), st.data())
def test_the_sum_is_the_batch_and_bounds_hold(speeds: list[float], batch: int, micro: int, data: st.DataObject) -> None:
    planner, workers = planner_of(speeds)
    limits = {worker: data.draw(st.integers(0, 3000)) for worker in workers}
    try:
        shares = planner.shares(workers, batch, limits, micro)
    except InvalidInput:
        most = [limits[worker] or batch for worker in workers]
        fits = sum(room // micro * micro for room in most)
        assert batch // micro * micro > fits or all(room % micro < batch % micro for room in most)
        return
    assert list(shares) == workers
    assert sum(shares.values()) == batch
    assert all(0 <= shares[worker] <= (limits[worker] or batch) for worker in workers)
    assert sum(share % micro != 0 for share in shares.values()) <= 1
    room = [worker for worker in workers if (limits[worker] or batch) >= micro]
    if batch // micro >= len(room):
        assert all(shares[worker] >= micro for worker in room)


@given(SPEEDS, st.integers(1, 5000), st.randoms(use_true_random=False))
def test_the_order_of_the_workers_does_not_matter(speeds: list[float], batch: int, chance: random.Random) -> None:
    planner, workers = planner_of(speeds)
    mixed = workers.copy()
    chance.shuffle(mixed)
    assert planner.shares(mixed, batch, {}) == planner.shares(workers, batch, {})


@given(st.integers(1, 12), st.floats(min_value=1e-3, max_value=1e6), st.integers(1, 5000))
def test_equal_speeds_give_shares_that_differ_by_one_at_most(count: int, speed: float, batch: int) -> None:
    planner, workers = planner_of([speed] * count)
    shares = planner.shares(workers, batch, {}).values()
    assert max(shares) - min(shares) <= 1


@given(SPEEDS, st.integers(1, 5000), st.data())
def test_who_is_faster_has_no_smaller_share(speeds: list[float], batch: int, data: st.DataObject) -> None:
    planner, workers = planner_of(speeds)
    shares = planner.shares(workers, batch, {})
    in_order = sorted(workers, key=lambda worker: planner.speeds()[worker])
    rising = [planner.speeds()[worker] for worker in in_order]
    for slower, faster, more in zip(in_order, in_order[1:], rising[1:], strict=False):
        assert shares[slower] <= shares[faster] or planner.speeds()[slower] == more
    one = data.draw(st.sampled_from(workers))
    planner.restore(planner.speeds() | {one: planner.speeds()[one] * data.draw(st.floats(1.0, 100.0))})
    assert planner.shares(workers, batch, {})[one] >= shares[one]


@given(SPEEDS, st.integers(0, 5000), st.data())
def test_no_share_is_further_than_one_from_its_quota(speeds: list[float], total: int, data: st.DataObject) -> None:
    """Hamilton's method keeps quotas, as far as nobody is held at a bound."""
    names = [str(number) for number in range(len(speeds))]
    dealt = apportioned(total, dict(zip(names, speeds, strict=True)), dict.fromkeys(names, total))
    quotas = {name: total * speed / sum(speeds) for name, speed in zip(names, speeds, strict=True)}
    if all(quota >= 1 for quota in quotas.values()):
        assert all(abs(dealt[name] - quotas[name]) < 1 + 1e-6 for name in names)


def test_what_a_limit_cuts_off_goes_to_the_others_by_speed() -> None:
    planner, workers = planner_of([6.0, 2.0, 1.0])
    assert planner.shares(workers, 90, {}) == {"worker-0": 60, "worker-1": 20, "worker-2": 10}
    assert planner.shares(workers, 90, {"worker-0": 30}) == {"worker-0": 30, "worker-1": 40, "worker-2": 20}
    assert planner.shares(workers, 90, {"worker-0": 30, "worker-1": 31}) == {
        "worker-0": 30,
        "worker-1": 31,
        "worker-2": 29,
    }


def test_a_batch_that_is_smaller_than_the_workers_are_many_goes_to_the_fastest() -> None:
    planner, workers = planner_of([1.0, 5.0, 3.0])
    assert planner.shares(workers, 2, {}) == {"worker-0": 0, "worker-1": 1, "worker-2": 1}


def test_shares_of_a_pipeline_are_micro_batches_and_one_has_the_rest() -> None:
    planner, workers = planner_of([3.0, 1.0])
    assert planner.shares(workers, 100, {}, 16) == {"worker-0": 80, "worker-1": 20}
    assert planner.shares(workers, 7, {}, 16) == {"worker-0": 7, "worker-1": 0}
    assert planner.shares(workers, 100, {"worker-0": 64}, 16) == {"worker-0": 64, "worker-1": 36}


def test_equal_and_fixed_plans_know_no_speed() -> None:
    for plan in ("equal", "fixed"):
        planner = Planner(settings(plan=plan))
        planner.restore({"b": 9.0})
        assert planner.shares(["a", "b", "c"], 10, {}) == {"a": 4, "b": 3, "c": 3}
        assert not (planner.due(1, True) and planner.due(2, True))
    # Of fixed, the order is that of the ranks, which names need not follow.
    ranks = [f"worker-{number}" for number in range(11)]
    assert list(Planner(settings(plan="fixed")).shares(ranks, 14, {}).values()) == [2, 2, 2, *[1] * 8]


@pytest.mark.parametrize(
    ("workers", "batch", "limits", "multiple", "message"),
    [
        ([], 5, {}, 1, "different workers"),
        (["a", "a"], 5, {}, 1, "different workers"),
        (["a"], 0, {}, 1, "a batch of 0 samples"),
        (["a"], 5, {}, 0, "multiples of 0"),
        (["a"], 5, {"a": -1}, 1, "holds -1 samples"),
        (["a", "b"], 9, {"a": 4, "b": 4}, 1, "does not fit into 2 workers that hold 8 together"),
        (["a", "b"], 20, {"a": 16, "b": 16}, 16, None),
        (["a", "b"], 36, {"a": 18, "b": 18}, 16, "does not fit"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    workers: list[str], batch: int, limits: dict[str, int], multiple: int, message: str | None
) -> None:
    planner = Planner(settings())
    if message is None:
        assert sum(planner.shares(workers, batch, limits, multiple).values()) == batch
        return
    with pytest.raises(InvalidInput, match=message):
        planner.shares(workers, batch, limits, multiple)
