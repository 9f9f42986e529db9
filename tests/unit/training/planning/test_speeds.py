"""How plans follow what workers measure."""

from __future__ import annotations

import math

import pytest

from encephalon.training.planning import Planner
from tests.unit.training.planning.cluster import Cluster, settings

ONE_SLOW = {"a": 300.0, "b": 300.0, "c": 300.0, "d": 100.0}


def cluster(fixed: float = 0.0, batch: int = 240, **changes: object) -> Cluster:
    return Cluster(Planner(settings(**changes)), dict(ONE_SLOW), batch, fixed)


@pytest.mark.parametrize(("fixed", "within"), [(0.0, 1.02), (0.05, 1.05), (0.2, 1.05), (1.0, 1.1)])
@pytest.mark.parametrize("replan", ["steps", "epoch"])
def test_one_slow_worker_costs_almost_nothing_after_five_plans(fixed: float, within: float, replan: str) -> None:
    """The larger the fixed cost, the slower it converges, and the less there is to win."""
    found = cluster(fixed, replan=replan)
    equal = found.steps(1)[0]
    found.steps(49)
    assert sum(found.steps(10)) / 10 <= within * found.ideal()
    assert equal == pytest.approx(fixed + 240 / 4 / 100)


def test_the_plan_converges_with_a_fixed_cost_and_does_not_swing() -> None:
    """v = p / t of a larger share is larger (the cost is spread over more), so shares feed back into speeds. The
    derivative of that is a / (a + c b), below 1: shares go to where times are equal, from one side."""
    found = cluster(fixed=0.4, replan_every=1, smoothing=1.0)
    slow = []
    for _ in range(40):
        found.steps(1)
        assert found.shares is not None
        slow.append(found.shares["d"])
    assert slow == sorted(slow, reverse=True)
    assert slow[-1] == pytest.approx(24, abs=2)


def test_a_change_is_followed_within_a_few_plans() -> None:
    found = cluster(fixed=0.02)
    found.steps(50)
    found.speeds |= {"a": 100.0, "d": 300.0}  # they change places
    found.steps(30)
    assert max(found.steps(10)) <= 1.05 * found.ideal()


@pytest.mark.parametrize("every", [1, 3, 10])
def test_a_hiccup_does_not_swing_the_plan(every: int) -> None:
    found = cluster(replan_every=every)
    found.steps(30)
    before = dict(found.shares or {})
    found.steps(1, slow={"a": 50.0})
    for _ in range(12):
        found.steps(1)
        assert found.shares is not None
        assert all(abs(found.shares[worker] - before[worker]) <= 2 for worker in before)


def test_a_first_measurement_that_warms_up_is_no_measure() -> None:
    found = cluster()
    found.steps(1, slow=dict.fromkeys("abc", 20.0))
    found.steps(9)
    assert max(found.steps(5)) <= 1.05 * found.ideal()


def test_the_short_batch_at_the_end_of_an_epoch_tells_little() -> None:
    planner = Planner(settings())
    assert planner.due(1, True)
    for samples, seconds in ((100, 1.1), (100, 1.1), (3, 0.13)):
        planner.observe("a", samples, seconds)
    assert planner.due(4, False)
    assert planner.speeds() == {"a": pytest.approx(100 / 1.1)}


def test_shares_are_equal_until_there_are_measurements() -> None:
    found = cluster()
    found.steps(3)
    assert found.shares == {"a": 60, "b": 60, "c": 60, "d": 60}
    found.steps(1)
    assert found.shares == {"a": 72, "b": 72, "c": 72, "d": 24}


def test_a_new_worker_begins_with_the_median_speed() -> None:
    found = cluster()
    found.steps(10)
    found.planner.forget("d")
    shares = found.planner.shares(["a", "b", "c", "new"], 240, {})
    assert shares == {"a": 60, "b": 60, "c": 60, "new": 60}
    assert "d" not in found.planner.speeds()
    # One slow share does not make it slow: it may have been the one that warmed up.
    found.planner.observe("new", 60, 6.0)
    assert found.planner.due(100, False)
    assert found.planner.speeds()["new"] == pytest.approx((300 + 10) / 2)


def test_plans_are_due_every_so_many_updates_or_once_an_epoch() -> None:
    def due(planner: Planner) -> list[int]:
        found = []
        for update in range(1, 31):
            if planner.due(update, (update - 1) % 7 == 0):
                found.append(update)
                assert planner.due(update, False)  # asking again changes nothing
            planner.observe("a", 10, 1.0)
        return found

    assert due(Planner(settings(replan_every=10))) == [1, 4, 14, 24]
    assert due(Planner(settings(replan_every=2))) == [1, *range(3, 31, 2)]
    assert due(Planner(settings(replan="epoch"))) == [1, 8, 15, 22, 29]
    assert due(Planner(settings(plan="equal"))) == [1]


def test_a_planner_goes_on_where_another_one_ended() -> None:
    found = cluster()
    found.steps(20)
    other = Planner(settings())
    other.restore(found.planner.speeds())
    assert other.due(21, False)
    assert other.shares(list(ONE_SLOW), 240, {}) == found.shares
    other.restore({"a": 0.0, "b": math.nan, "c": math.inf, "d": -1.0, "e": 5.0})
    assert other.speeds() == {"e": 5.0}


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_what_cannot_be_a_measurement_is_left_out(seconds: float) -> None:
    planner = Planner(settings())
    planner.observe("a", 10, seconds)
    planner.observe("a", 0, 1.0)
    assert planner.due(1, True)
    assert planner.speeds() == {}
    planner.observe("a", 1 << 62, 1e-300)  # absurd, and yet a number
    planner.observe("b", 1, 1e300)
    assert planner.due(4, False)
    assert sum(planner.shares(["a", "b"], 96, {}).values()) == 96
