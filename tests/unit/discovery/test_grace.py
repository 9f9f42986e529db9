"""When a coordinator lets an instance go, on a clock of the test."""

from __future__ import annotations

from encephalon.discovery import Instance
from encephalon.discovery.following import _Instances
from encephalon.state import Event, EventKind

KEY = "/encephalon/n/instances/digits/visual/one"


def put(instances: _Instances, now: float, state: Instance.State.ValueType = Instance.STATE_READY) -> None:
    made = Instance(brain="digits", region="visual", id="one", address="h:1", state=state)
    instances.take(Event(EventKind.PUT, KEY, made.SerializeToString(), 2), now)


def known(now: float, state: Instance.State.ValueType = Instance.STATE_READY) -> _Instances:
    instances = _Instances(grace_s=5)
    put(instances, now, state)
    instances.take(Event(EventKind.LISTED, "", b"", 2), now)
    return instances


RESUMED, DELETE = Event(EventKind.RESUMED, "", b"", 3), Event(EventKind.DELETE, KEY, b"", 4)


def test_a_removal_in_quiet_times_counts_at_once() -> None:
    instances = known(100)
    instances.take(DELETE, 101)
    assert instances.present() == ()


def test_a_removal_right_after_a_return_is_held_back() -> None:
    instances = known(100)
    instances.take(RESUMED, 110)
    instances.take(DELETE, 112)
    assert instances.next_release(113) == 4
    instances.release(116.9)
    assert len(instances.present()) == 1
    instances.release(117)
    assert instances.present() == ()
    assert instances.next_release(117) is None


def test_who_announces_again_in_time_never_left() -> None:
    instances = known(100)
    instances.take(RESUMED, 110)
    instances.take(DELETE, 112)
    put(instances, 113)
    instances.release(200)
    assert len(instances.present()) == 1


def test_a_removal_later_than_the_grace_counts_at_once() -> None:
    instances = known(100)
    instances.take(RESUMED, 110)
    instances.take(DELETE, 115)
    assert instances.present() == ()


def test_who_was_draining_is_not_held_back() -> None:
    instances = known(100, Instance.STATE_DRAINING)
    instances.take(RESUMED, 110)
    instances.take(DELETE, 110)
    assert instances.present() == ()
