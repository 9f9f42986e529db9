"""The pictures and the event file of a run. Their looks are judged by eye; here, that they can always be made."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encephalon.training.recording import History
from tests.unit.training.recording.histories import evaluation, history, step

EMPTY, ONE = History(), History()
ONE.add(step(1))


def unlike_white(png: bytes) -> float:
    """Part of the picture that has something on it."""
    return float((np.asarray(Image.open(io.BytesIO(png)).convert("L")) < 250).mean())


@pytest.mark.slow
@pytest.mark.parametrize("found", [EMPTY, ONE, history(60)], ids=["empty", "one update", "a run"])
def test_curves_can_be_drawn_of_any_history(found: History) -> None:
    from encephalon.training.recording.curves import curves

    png = curves(found, "Run", evaluation(60, 0.9, "test"))
    assert unlike_white(png) > 0.005
    assert png == curves(found, "Run", evaluation(60, 0.9, "test"))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4, 30])
def test_shares_can_be_drawn_of_any_number_of_workers(workers: int) -> None:
    from encephalon.training.recording.shares import shares_picture

    assert unlike_white(shares_picture(history(40, workers=[f"worker-{n}" for n in range(workers)]), "Run")) > 0.3
    assert unlike_white(shares_picture(EMPTY, "Run")) > 0.001


@pytest.mark.slow
def test_tensorboard_reads_the_event_file(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from encephalon.training.recording.tensorboard import events

    name, data = events(history(20), 1_800_000_000.0)
    (tmp_path / name).write_bytes(data)
    board = EventAccumulator(str(tmp_path)).Reload()
    found = {
        tag: [board.Tensors, board.Scalars][tag in board.Tags()["scalars"]](tag) for tag in board.Tags()["scalars"]
    }
    assert len(found["loss/train"]) == 20
    assert [each.value for each in found["shares/worker-0"]] == [0.5] * 20
    assert found["accuracy/validation/digit"][-1].step == 20
    assert found["loss/train"][-1].wall_time == pytest.approx(1_800_000_002.0)
    assert {"optimizer/learning_rate", "optimizer/gradient_norm", "speed/samples_per_second"} <= found.keys()
