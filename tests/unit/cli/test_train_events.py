"""What is said, and drawn, of a run that goes on."""

from __future__ import annotations

import io

from rich.console import Console

from encephalon.api.training.v1.training_pb2 import RunState, RunStatus, WorkerStatus
from encephalon.cli.training.events import events
from encephalon.cli.training.picture import Picture
from tests.unit.local.training.statuses import evaluation, starting, status, statuses

WIDTH = 80


def changed(version: int, **fields: object) -> RunStatus:
    found = status("first", version)
    found.MergeFrom(RunStatus(**fields))  # type: ignore[arg-type]
    return found


def test_a_quiet_run_says_a_line_per_epoch_and_judgement() -> None:
    told = [starting("first"), *statuses("first")]
    said = [event for before, now in zip([None, *told], told, strict=False) for event in events(before, now)]
    assert said == [
        "waits for workers",
        "learns",
        "worker-0 is there",
        "worker-1 is there",
        "epoch 1/2 done at step 5, loss 0.4, 250 samples/s",
        "validation after epoch 1: loss 1, right: probabilities 50.0 %",
        "epoch 2/2 done at step 10, loss 0.2, 250 samples/s",
        "validation after epoch 2: loss 0.5, right: probabilities 75.0 %",
    ]


def test_a_run_that_goes_on_does_not_tell_again_what_it_has_told() -> None:
    assert list(events(starting("first"), status("first", 7))) == ["learns", "worker-0 is there", "worker-1 is there"]


def test_what_is_lost_and_back_is_said() -> None:
    well, hurt = status("first", 3), status("first", 3)
    hurt.workers[1].state = WorkerStatus.STATE_LOST
    hurt.shards[0].lost = True
    hurt.checkpoint_problem = "the disk is full"
    assert list(events(well, hurt)) == [
        "worker-1 is lost; others get its share",
        "shard-0 is lost; the run waits for it",
        "no checkpoint could be written, learning goes on: the disk is full",
    ]
    assert list(events(hurt, hurt)) == []
    back = changed(1, checkpoint_version=1)
    assert list(events(hurt, back)) == [
        "back at step 1, that of the last checkpoint",
        "worker-1 is back",
        "shard-0 is back",
        "checkpoints are written again, the last one of step 1",
    ]
    left = status("first", 3)
    left.workers[0].state = WorkerStatus.STATE_LEFT
    assert list(events(well, left)) == ["worker-0 has left"]
    last = changed(10, state=RunState.STATE_SUCCEEDED, sentence="all epochs are done")
    last.test.CopyFrom(evaluation(1, "test"))
    assert list(events(status("first", 10), last)) == ["test after epoch 2: loss 0.5, right: probabilities 75.0 %"]


def test_a_shard_that_has_yet_to_load_is_not_lost() -> None:
    young = status("first", 0)
    for shard in young.shards:
        shard.held_bytes, shard.lost = 0, True
    assert not [event for event in events(starting("first"), young) if "shard" in event]
    assert list(events(young, status("first", 0))) == []


def drawn(picture: Picture, found: RunStatus) -> list[str]:
    console = Console(file=io.StringIO(), width=WIDTH, force_terminal=False)
    console.print(picture.drawn(found))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_picture_fits_a_terminal_and_says_who_is_slow() -> None:
    picture = Picture()
    for found in statuses("first"):
        lines = drawn(picture, found)
        assert all(len(line) <= WIDTH and "…" not in line for line in lines)
    assert lines[0].startswith("epoch 2/2")
    assert "100/100" in lines[0]
    assert lines[1] == "step 10, loss 0.2, 250 samples/s"
    slow = next(line for line in lines if line.startswith("worker-1"))
    assert slow.split()[2:4] == ["25", "5"]  # samples of the epoch, and its share of a batch
    assert slow.endswith("2.4x slower")
    assert any(line.split() == ["shard-1", "10", "1.00", "MiB"] for line in lines)
    assert any(line.split() == ["2", "validation", "0.5", "75.0", "%"] for line in lines)


def test_a_picture_without_anybody() -> None:
    assert drawn(Picture(), starting("first"))[-1] == "waits for workers"


def test_many_workers_are_counted() -> None:
    found = status("first", 3)
    for number in range(2, 40):
        found.workers.add(worker=f"worker-{number}", share=1)
    assert any(line == "and 24 more" for line in drawn(Picture(), found))
