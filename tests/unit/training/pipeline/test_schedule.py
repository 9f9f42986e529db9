"""1F1B: how much is held, and that stages compute at the same time."""

from __future__ import annotations

import pytest

from encephalon.core.errors import Cancelled, EncephalonError, InvalidInput, Unavailable
from tests.unit.learning.brains import brain_of, settings_of
from tests.unit.training.pipeline.staged import Rendezvous, staged, steady
from tests.unit.training.pipeline.test_equality import DIAMOND, ROWS, points
from tests.unit.training.worker.fakes import share_of


def test_no_more_micro_batches_are_held_than_regions_follow() -> None:
    with staged(steady(brain_of(DIAMOND)), settings_of(pipeline=True, micro_batch=1)) as run:
        run.pipeline.train(share_of(0, ROWS), points(1))
        assert run.most_held("stem") <= 3
        assert run.most_held("left") <= 2
        assert run.most_held("right") <= 2
        assert run.most_held("join") == 1
        order = [event[2:] for event in run.events if event[:2] == ("begin", "stem")]
    assert len(order) == 2 * ROWS
    assert [number for direction, number in order if direction == "backward"] == list(range(ROWS))


def test_stages_compute_at_the_same_time() -> None:
    # Neither pass goes on before the other has begun: the first region is at the second micro-batch while the last one
    # is at the first.
    meeting = Rendezvous(("stem", "forward", 1), ("join", "forward", 0))
    with staged(steady(brain_of(DIAMOND)), settings_of(pipeline=True, micro_batch=4), meeting) as run:
        run.pipeline.train(share_of(0, ROWS), points(1))


def test_backward_overlaps_with_forward() -> None:
    meeting = Rendezvous(("stem", "forward", 2), ("join", "backward", 0))
    with staged(steady(brain_of(DIAMOND)), settings_of(pipeline=True, micro_batch=4), meeting) as run:
        run.pipeline.train(share_of(0, ROWS), points(1))


def test_regions_are_prepared_once_and_again_when_another_process_is_there() -> None:
    with staged(steady(brain_of(DIAMOND)), settings_of(pipeline=True, micro_batch=8)) as run:
        for update in (1, 2):
            run.pipeline.train(share_of(0, ROWS, update=update), points(update))
        assert sorted(run.prepared) == ["join", "left", "right", "stem"]


def failing(error: Exception) -> tuple[object, list[Exception]]:
    errors = [error]

    def meet(region: str, direction: str, micro_batch: int) -> None:
        if errors and (region, direction, micro_batch) == ("left", "backward", 1):
            raise errors.pop()

    return meet, errors


@pytest.mark.parametrize("error", [Unavailable("the shard is away"), InvalidInput("no"), RuntimeError("broken")])
def test_a_region_that_fails_is_named_and_the_share_can_be_given_again(error: Exception) -> None:
    meet, _ = failing(error)
    with staged(steady(brain_of(DIAMOND)), settings_of(pipeline=True, micro_batch=4), meet) as run:  # type: ignore[arg-type]
        with pytest.raises(EncephalonError, match="region 'left'") as raised:
            run.pipeline.train(share_of(0, ROWS), points(1))
        assert isinstance(raised.value, Unavailable) == isinstance(error, Unavailable)
        outcome = run.pipeline.train(share_of(0, ROWS, attempt=1), points(1))
        assert outcome.samples == ROWS
        assert all(client.pushes[-1].finished for client in run.clients.values())
        assert all(not client.pushes[0].finished for client in run.clients.values())


def test_a_share_that_was_taken_away_is_dropped_by_every_region() -> None:
    dropping: list[object] = []

    def meet(region: str, direction: str, micro_batch: int) -> None:
        if dropping and (region, direction, micro_batch) == ("join", "backward", 0):
            dropping.pop()
            run.pipeline.drop()

    with staged(steady(brain_of(DIAMOND)), settings_of(pipeline=True, micro_batch=1), meet) as run:
        dropping.append(True)
        with pytest.raises(Cancelled):
            run.pipeline.train(share_of(0, ROWS), points(1))
        assert run.pipeline.train(share_of(0, ROWS, attempt=1), points(1)).samples == ROWS


def test_a_region_that_is_not_announced_is_named() -> None:
    with staged(steady(brain_of(DIAMOND)), settings_of(pipeline=True), find_s=0.01) as run:
        run.places.announced([])
        with pytest.raises(Unavailable, match="region 'stem' of w is not there"):
            run.pipeline.train(share_of(0, ROWS), points(1))


def test_a_region_that_does_not_get_on_is_named() -> None:
    meeting = Rendezvous(("left", "forward", 1), ("left", "forward", -1), within_s=1.0)  # nobody else comes
    settings = settings_of(pipeline=True, micro_batch=8)
    with (
        staged(steady(brain_of(DIAMOND)), settings, meeting, compute_s=0.3) as run,
        pytest.raises(Unavailable, match="region 'left' has not finished a pass"),
    ):
        run.pipeline.train(share_of(0, ROWS), points(1))
